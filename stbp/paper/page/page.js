// Copy buttons; without script the commands can be selected with one click.
for (const block of document.querySelectorAll("code.command")) {
  const button = document.createElement("button");
  [button.type, button.className, button.textContent] = ["button", "copy", "copy"];
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
    } catch {
      getSelection().selectAllChildren(block);
      document.execCommand("copy"); // where the clipboard is closed to pages from disk
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  block.after(button);
}
// Everything that is folded away belongs on paper, and so does a section that a link leads to.
const folded = () => document.querySelectorAll("details:not([open])");
let opened = [];
window.addEventListener("beforeprint", () => (opened = [...folded()]).forEach((d) => (d.open = true)));
window.addEventListener("afterprint", () => opened.forEach((d) => (d.open = false)));
const follow = () => {
  const target = location.hash.startsWith("#result-") && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.open = true;
};
window.addEventListener("hashchange", follow);
follow();
