// Filters of a table of claims, and the arrows of a map that lights up under the pointer.
(() => {
  // The address of a choice: #is=refuted&paper=imbalance
  const filter = (box) => {
    const rows = [...document.querySelectorAll("table.claims tbody tr")];
    const groups = [...box.querySelectorAll("[data-filter]")];
    const said = box.querySelector("p");
    const chosen = Object.fromEntries(groups.map((group) => [group.dataset.filter, ""]));
    const show = () => {
      for (const group of groups) {
        for (const button of group.querySelectorAll("button")) {
          button.setAttribute("aria-pressed", button.dataset.value === chosen[group.dataset.filter]);
        }
      }
      for (const row of rows) row.hidden = Object.entries(chosen).some(([what, value]) => value && row.dataset[what] !== value);
      for (const part of document.querySelectorAll("[data-part]")) part.hidden = !part.querySelector("tbody tr:not([hidden])");
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims are shown.`;
    };
    const follow = () => {
      const given = new URLSearchParams(location.hash.slice(1));
      for (const group of groups) {
        const value = given.get(group.dataset.filter) ?? "";
        const known = [...group.querySelectorAll("button")].some((button) => button.dataset.value === value);
        chosen[group.dataset.filter] = known ? value : "";
      }
      show();
    };
    for (const group of groups) {
      for (const button of group.querySelectorAll("button")) {
        button.addEventListener("click", () => {
          chosen[group.dataset.filter] = button.dataset.value;
          const set = Object.entries(chosen).filter(([, value]) => value);
          history.replaceState(history.state, "", set.length ? `#${new URLSearchParams(set)}` : location.pathname + location.search);
          show();
        });
      }
    }
    addEventListener("hashchange", follow);
    box.hidden = false;
    follow();
  };

  const light = (map) => {
    const arrows = [...map.querySelectorAll("path[data-from]")];
    const mark = (id) => arrows.forEach((arrow) => arrow.classList.toggle("lit", [arrow.dataset.from, arrow.dataset.to].includes(id)));
    for (const box of map.querySelectorAll("[data-id]")) {
      for (const event of ["pointerenter", "focus"]) box.addEventListener(event, () => mark(box.dataset.id));
      for (const event of ["pointerleave", "blur"]) box.addEventListener(event, () => mark(null));
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".filters").forEach(filter);
    document.querySelectorAll(".claim-map").forEach(light);
  });
})();
