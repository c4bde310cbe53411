// A switch in the top bar that opens and closes all folded code, and is remembered.
(() => {
  const KEY = "firststep-show-code";
  const remembered = () => { try { return localStorage.getItem(KEY) === "yes"; } catch { return false; } };
  const remember = (shown) => { try { localStorage.setItem(KEY, shown ? "yes" : "no"); } catch { /* not here */ } };

  document.addEventListener("DOMContentLoaded", () => {
    const folds = document.querySelectorAll("details.fold");
    const bar = document.querySelector(".article-header-buttons");
    if (!folds.length || !bar) return;
    const button = document.createElement("button");
    button.className = "btn btn-sm show-code";
    button.type = "button";
    const show = (shown) => {
      folds.forEach((fold) => { fold.open = shown; });
      button.setAttribute("aria-pressed", shown);
      button.textContent = "Show code";
    };
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      remember(shown);
      show(shown);
    });
    bar.prepend(button);
    show(remembered());
  });
})();
