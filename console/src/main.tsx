import "./styles.css";
import "./parts.css";
import "./pages.css";
import "./small.css";
import { Component, render, type ComponentChildren } from "preact";
import { about, connect } from "./api";
import { startFeed } from "./feed";
import { startKeys } from "./keys";
import { Shell } from "./shell";
import { ErrorNote } from "./shown";
import { startState } from "./state";
import { startTheme } from "./theme";

/** A fault of the page itself is shown, never a blank page. */
class Boundary extends Component<{ children: ComponentChildren }, { error: unknown }> {
  override state = { error: null };
  override componentDidCatch(error: unknown): void {
    this.setState({ error });
  }
  override render() {
    if (this.state.error === null) return this.props.children;
    return (
      <div class="pad-all">
        <ErrorNote error={this.state.error}>
          <p>
            This is a fault of the page. <a href="#/" onClick={() => location.reload()}>Load it again</a>
          </p>
        </ErrorNote>
      </div>
    );
  }
}

startTheme();
startState();
startFeed();
startKeys(() => about.value?.write === true);
connect();
const host = document.getElementById("app")!;
host.replaceChildren();
render(
  <Boundary>
    <Shell />
  </Boundary>,
  host,
);
