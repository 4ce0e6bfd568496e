import "./styles.css";
import "./parts.css";
import { render } from "preact";
import { about, connect } from "./api";
import { startFeed } from "./feed";
import { startKeys } from "./keys";
import { Shell } from "./shell";
import { startState } from "./state";
import { startTheme } from "./theme";

startTheme();
startState();
startFeed();
startKeys(() => about.value?.write === true);
connect();
const host = document.getElementById("app")!;
host.replaceChildren();
render(<Shell />, host);
