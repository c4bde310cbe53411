// Replays the grid of every explorable on the page. No server, no kernel, no network.
(() => {
  const MOST_BUTTONS = 4; // a choice of more than these is a list
  const columnsToRows = (table) => {
    const names = Object.keys(table);
    return table[names[0]].map((_, i) => Object.fromEntries(names.map((name) => [name, table[name][i]])));
  };
  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // A control is a row of the panel with a place on its scale: { row, get place(), put(place) }.
  const slider = (control, id, moved) => {
    const input = element("input", { type: "range", min: 0, max: control.values.length - 1, step: 1, id });
    const shown = element("output", { htmlFor: id });
    const tell = () => {
      shown.textContent = control.values[input.value];
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => { tell(); moved(); });
    const row = element("div", { className: "control" }, element("label", { htmlFor: id, textContent: control.label }), shown, input);
    return { row, get place() { return Number(input.value); }, put: (place) => { input.value = place; tell(); } };
  };
  const list = (control, id, moved) => {
    const input = element("select", { id }, ...control.values.map((value, i) => new Option(value, i)));
    input.addEventListener("input", moved);
    const row = element("div", { className: "control" }, element("label", { htmlFor: id, textContent: control.label }), input);
    return { row, get place() { return Number(input.value); }, put: (place) => { input.value = place; } };
  };
  const buttons = (control, id, moved) => {
    const radios = control.values.map((_, i) => element("input", { type: "radio", name: id, value: i }));
    radios.forEach((radio) => radio.addEventListener("input", moved));
    const labels = radios.map((radio, i) => element("label", {}, radio, element("span", { textContent: control.values[i] })));
    const group = element("div", { className: "buttons" }, ...labels);
    const row = element("fieldset", { className: "control" }, element("legend", { textContent: control.label }), group);
    return {
      row,
      get place() { return radios.findIndex((radio) => radio.checked); },
      put: (place) => { radios[place].checked = true; },
    };
  };
  const makeControl = (control, id, moved) => {
    if (control.kind === "slider") return slider(control, id, moved);
    return (control.values.length > MOST_BUTTONS ? list : buttons)(control, id, moved);
  };

  // The plot is as wide as the column; concatenated plots need their width as a number.
  const fitted = (spec, room) => {
    const parts = spec.vconcat;
    if (parts) return { ...spec, vconcat: parts.map((part) => ({ ...part, width: Math.max(180, Math.min(part.width, room - 90)) })) };
    return { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } };
  };

  // The address of a setting: ?name.first=0.3&name.second=relu#explore-name
  const addressOf = (section, controls, places) => {
    const pairs = controls.map((control, i) => [`${section.id}.${control.name}`, control.values[places[i]]]);
    return `?${new URLSearchParams(pairs)}#${section.id}`;
  };
  const placesFrom = (section, controls) => {
    const given = new URLSearchParams(location.search);
    const places = controls.map((control) =>
      control.values.findIndex((value) => String(value) === given.get(`${section.id}.${control.name}`)));
    return places.includes(-1) ? null : places;
  };

  const start = async (section) => {
    const { spec, controls, presets, tables, grid } = JSON.parse(section.querySelector("script").textContent);
    const chart = section.querySelector(".chart");
    const [predicted, measured, verdict] = section.querySelectorAll(".facts dd");
    const holder = element("div");
    const inputs = controls.map((control, i) => makeControl(control, `${section.id}-${i}`, () => draw()));
    inputs.forEach((input, i) => input.put(controls[i].start));
    section.querySelector(".controls").append(...inputs.map((input) => input.row));

    const put = (places) => { inputs.forEach((input, i) => input.put(places[i])); return draw(); };
    const link = element("a", { textContent: "Link to this setting" });
    const first = controls.map((control) => control.start);
    const settings = [...Object.entries(presets), ["Reset", first]];
    const shortcuts = settings.map(([name, places]) => {
      const button = element("button", { type: "button", textContent: name });
      button.addEventListener("click", () => put(places));
      return button;
    });
    section.querySelector(".controls").after(element("div", { className: "presets" }, ...shortcuts, link));

    const still = chart.firstElementChild;
    still.style.display = "none";
    chart.append(holder);
    const { view } = await firststepVega.vegaEmbed(holder, fitted(spec, chart.clientWidth), { actions: false, renderer: "svg" });
    const draw = async () => {
      const places = inputs.map((input) => input.place);
      const position = places.reduce((sum, place, i) => sum * controls[i].values.length + place, 0);
      const outcome = grid[position];
      for (const [name, index] of Object.entries(outcome.tables)) view.data(name, columnsToRows(tables[index]));
      predicted.textContent = outcome.prediction;
      measured.textContent = outcome.measurement;
      verdict.textContent = outcome.verdict;
      const state = outcome.survived === null ? "silent" : outcome.survived ? "survived" : "broken";
      section.querySelector(".facts").className = `facts ${state}`;
      chart.setAttribute("aria-label", `Chart. Predicted: ${outcome.prediction}. Measured: ${outcome.measurement}.`);
      link.href = addressOf(section, controls, places);
      await view.runAsync();
      section.dataset.drawn = position; // the point of the grid that the chart now shows
    };
    const recolor = () => holder.querySelectorAll('[fill="#010203"],[stroke="#010203"]').forEach((mark) => {
      for (const name of ["fill", "stroke"]) {
        if (mark.getAttribute(name) === "#010203") mark.setAttribute(name, "currentColor");
      }
    });
    const asked = placesFrom(section, controls);
    await (asked ? put(asked) : draw());
    recolor();
    new MutationObserver(recolor).observe(holder, { subtree: true, childList: true, attributes: true });
    still.remove();
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
