import { render } from "preact";
import "./styles/base.css";
import { App, startFollowing } from "./shell/App";

const page = document.getElementById("page");
if (page) {
  startFollowing();
  render(<App />, page);
}
