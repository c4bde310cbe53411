// Replays the grid of every explorable on the page. No server, no kernel, no network.
(() => {
  const columnsToRows = (table) => {
    const names = Object.keys(table);
    return table[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, table[name][i]])));
  };

  const makeControl = (control, index, section, moved) => {
    const row = document.createElement("div");
    row.className = "control";
    const id = `${section.id}-${index}`;
    const label = document.createElement("label");
    label.htmlFor = id;
    label.textContent = control.label;
    row.append(label);
    let input;
    let tell = () => {};
    if (control.kind === "choice") {
      input = document.createElement("select");
      control.values.forEach((value, i) => input.add(new Option(value, i)));
    } else {
      input = document.createElement("input");
      Object.assign(input, { type: "range", min: 0, max: control.values.length - 1, step: 1 });
      const shown = document.createElement("output");
      shown.htmlFor = id;
      row.append(shown);
      tell = () => {
        shown.textContent = control.values[input.value];
        input.setAttribute("aria-valuetext", shown.textContent);
      };
    }
    input.id = id;
    input.value = control.start;
    input.addEventListener("input", () => { tell(); moved(); });
    tell();
    row.append(input);
    section.querySelector(".controls").append(row);
    return input;
  };

  const start = async (section) => {
    const { spec, controls, tables, grid } = JSON.parse(section.querySelector("script").textContent);
    const chart = section.querySelector(".chart");
    const [predicted, measured, verdict] = section.querySelectorAll(".facts dd");
    const holder = document.createElement("div");
    const { view } = await firststepVega.vegaEmbed(holder, spec, { actions: false, renderer: "svg" });
    const inputs = controls.map((control, i) => makeControl(control, i, section, () => draw()));
    const draw = async () => {
      const position = inputs.reduce((sum, input, i) => sum * controls[i].values.length + Number(input.value), 0);
      const outcome = grid[position];
      for (const [name, index] of Object.entries(outcome.tables)) view.data(name, columnsToRows(tables[index]));
      predicted.textContent = outcome.prediction;
      measured.textContent = outcome.measurement;
      verdict.textContent = outcome.verdict;
      const state = outcome.survived === null ? "silent" : outcome.survived ? "survived" : "broken";
      section.querySelector(".facts").className = `facts ${state}`;
      chart.setAttribute("aria-label", `Chart. Predicted: ${outcome.prediction}. Measured: ${outcome.measurement}.`);
      await view.runAsync();
      section.dataset.drawn = position; // the point of the grid that the chart now shows
    };
    const recolor = () => holder.querySelectorAll('[fill="#010203"],[stroke="#010203"]').forEach((mark) => {
      for (const name of ["fill", "stroke"]) {
        if (mark.getAttribute(name) === "#010203") mark.setAttribute(name, "currentColor");
      }
    });
    await draw();
    recolor();
    new MutationObserver(recolor).observe(holder, { subtree: true, childList: true, attributes: true });
    chart.replaceChildren(holder);
    section.dataset.ready = "true";
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("section.explorable").forEach((section) => {
      start(section).catch((error) => {
        section.querySelector(".controls").textContent = "The controls could not start in this browser.";
        console.error(error);
      });
    });
  });
})();
