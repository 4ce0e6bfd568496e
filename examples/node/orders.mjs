// Natalog from Node: a transaction as JSON, a query as EDN text, the feed, and who answers.
//
//   npm install && node orders.mjs nats://127.0.0.1:4222 shop
import { connect, headers } from "@nats-io/transport-node";

const [url = "nats://127.0.0.1:4222", database = "node-shop"] = process.argv.slice(2);
const nc = await connect({ servers: url, name: "orders.mjs" });

// Errors are in the headers, with the details in the body.
async function ask(subject, payload, type) {
  const h = headers();
  h.set("Content-Type", type);
  const msg = await nc.request(subject, payload, { timeout: 5000, headers: h });
  const code = msg.headers?.get("Nats-Service-Error-Code");
  if (code) throw new Error(`${msg.headers.get("Nats-Service-Error")} (${code})`);
  return { text: msg.string(), basis: msg.headers?.get("Natalog-Basis") };
}
const json = async (subject, body) =>
  JSON.parse((await ask(subject, JSON.stringify(body), "application/json")).text);
const edn = async (subject, text) => ask(subject, text, "application/edn");

// Discovery, as the NATS Services API has it.
let service;
for await (const msg of await nc.requestMany("$SRV.INFO.natalog", "", { maxWait: 500 })) {
  service ??= msg;
}
const info = service.json();
console.log("service", info.name, info.endpoints.length > 10);

try {
  await json("natalog._._.create", { database, schema_flexibility: "read" });
} catch (error) {
  if (!String(error).includes("exists")) throw error;
}

// The live feed: a report for each transaction, msgpack by default; its basis is in a header.
const feed = nc.subscribe(`natalog.${database}.db.report`);
await nc.flush();

// The id makes it exactly once: whoever is not sure of the answer sends it again.
const order = { tx_data: [{ "order/number": "N-1", "order/amount": 7 }], id: `node-${Date.now()}` };
const report = await json(`natalog.${database}.db.transact`, order);
console.log("transaction", report.tx_data.length, report.repeated ?? false);
const again = await json(`natalog.${database}.db.transact`, order);
console.log("again", again.tx === report.tx, again.repeated);
await edn(`natalog.${database}.db.transact`, '[{:order/number "N-2" :order/amount 8}]');

let seen = 0;
for await (const msg of feed) {
  seen += 1;
  if (seen === 2) break;
}
console.log("reports", seen);

const query = "[:find ?n ?a :where [?e :order/number ?n] [?e :order/amount ?a]]";
const found = await edn(`natalog.${database}.db.query`, query);
console.log("edn", found.text.includes('["N-1" 7]'), found.text.includes('["N-2" 8]'));
const rows = await json(`natalog.${database}.db.query`, { query, order_by: [0, ":asc"] });
console.log("json", JSON.stringify(rows));
try {
  await edn(`natalog.${database}.db.query`, "[:find ?x :where [?e :order/number");
} catch (error) {
  console.log("error", error.message.length > 10);
}
await nc.close();
