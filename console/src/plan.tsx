// What a query did, clause by clause, in the order in which the clauses ran.

import type { Plan } from "./query-run";
import { CopyButton, count, milliseconds } from "./shown";

function share(rows: number, most: number): number {
  // rows differ by orders of magnitude: the length of a bar is the logarithm
  return most <= 0 ? 0 : Math.log1p(rows) / Math.log1p(most);
}

function guess(estimated: unknown): string {
  if (estimated === null || estimated === undefined) return "";
  const number = Number(typeof estimated === "object" ? (estimated as { text: string }).text : estimated);
  return Number.isFinite(number) ? Math.round(number).toLocaleString("en") : "";
}

/** The steps with the rows that were expected, went in and came out. */
export function PlanView({ plan }: { plan: Plan }) {
  const most = Math.max(1, ...plan.steps.map((step) => step.rows));
  return (
    <div class="result">
      <div class="scroll" tabIndex={0} role="region" aria-label="query plan">
        <table class="plan">
          <caption>
            {count(plan.steps.length, "step")} touched {count(Number(plan.stats.rows_touched), "row")} and
            found {count(Number(plan.stats.rows), "row")} in {milliseconds(Number(plan.stats.elapsed_ms))}
            <CopyButton text={() => plan.text} label="Copy as text" />
          </caption>
          <thead>
            <tr>
              <th scope="col" class="ordinal">
                <span class="sr">step</span>
              </th>
              <th scope="col">clause, in the order of running</th>
              <th scope="col" class="numeric">
                expected
              </th>
              <th scope="col" class="numeric">
                rows in
              </th>
              <th scope="col" class="numeric">
                rows out
              </th>
              <th scope="col" class="bars">
                <span class="sr">rows out as a bar</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {plan.steps.map((step, at) => (
              <tr>
                <td class="ordinal">{at + 1}</td>
                <td class={`clause depth-${Math.min(Number(step.depth), 6)}`}>
                  <code>{step.clause}</code>
                </td>
                <td class="numeric">{guess(step.estimated)}</td>
                <td class="numeric">{Number(step.bound).toLocaleString("en")}</td>
                <td class="numeric">{Number(step.rows).toLocaleString("en")}</td>
                <td class="bars">
                  <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                    <rect width={Math.max(0.8, share(Number(step.rows), most) * 100)} height="8" rx="1" />
                  </svg>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </div>
  );
}
