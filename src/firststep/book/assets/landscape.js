// The title page's landscape ½(w₂w₁ + 1)²: a start that one drags, the path of gradient descent from it, and its loss.
(() => {
  const REACHED = 1e-12; // a loss that counts as zero
  const GONE = 1e6; // a weight that counts as infinite
  const NEAR = 0.3; // this close to the saddle a run counts as held by it
  const SLOW = [15, 90]; // steps to a loss of 0.01 between which a start's shade grows
  const VIEWS = { near: 2.2, wide: 6.5 }; // half the width of what is shown

  // The dynamics: what the package's gradient_descent does to two layers of one unit with target −1.

  const loss = (w1, w2) => (w1 * w2 + 1) ** 2 / 2;

  const descend = (w1, w2, eta, steps) => {
    const path = [[w1, w2]];
    for (let step = 0; step < steps && Math.abs(w1) < GONE && Math.abs(w2) < GONE; step++) {
      const residual = w1 * w2 + 1;
      [w1, w2] = [w1 - eta * residual * w2, w2 - eta * residual * w1];
      path.push([w1, w2]);
    }
    return path;
  };

  const fateOf = (path) => {
    const [w1, w2] = path.at(-1);
    const away = !(Math.abs(w1) < GONE && Math.abs(w2) < GONE);
    const reached = path.findIndex(([a, b]) => loss(a, b) < REACHED);
    const held = path.filter(([a, b]) => Math.hypot(a, b) < NEAR).length;
    return { kind: away ? "diverges" : reached < 0 ? "stuck" : "converges", reached, held, steps: path.length - 1 };
  };

  const number = (value) => String(Number(value.toFixed(2))).replace("-", "−");
  const inWords = ([w1, w2], fate, last) => {
    const product = w1 * w2;
    const rank = product === 0 ? "of rank zero" : "of full rank";
    const shown = product !== 0 && Math.abs(product) < 0.005 ? "close to 0" : number(product);
    const start = `Start (${number(w1)}, ${number(w2)}), product ${shown}, ${rank}:`;
    if (fate.kind === "diverges") return `${start} the steps overshoot, and the run diverges within ${fate.steps} steps.`;
    if (fate.kind === "stuck") {
      return fate.held
        ? `${start} gradient descent is stuck at the saddle; after ${fate.steps} steps the loss is still ${number(last)}.`
        : `${start} gradient descent has not settled after ${fate.steps} steps.`;
    }
    const wait = fate.held > 20 ? `the saddle holds the run for ${fate.held} steps before it lets go; ` : "";
    return `${start} ${wait}gradient descent reaches a minimum, with a loss below 10⁻¹² after ${fate.reached} steps.`;
  };

  // Every start of the view has the colour of its fate.
  const shade = (canvas, radius, eta, colors) => {
    const size = canvas.width = canvas.height = 260;
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    const rgb = Object.fromEntries(Object.entries(colors).map(([name, color]) => [name, color.match(/\w\w/g).map((h) => parseInt(h, 16))]));
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        let w1 = radius * (2 * (column + 0.5) / size - 1);
        let w2 = radius * (1 - 2 * (row + 0.5) / size);
        let step = 0;
        for (; step < SLOW[1] && loss(w1, w2) >= 0.01 && Math.abs(w1) < GONE && Math.abs(w2) < GONE; step++) {
          const residual = w1 * w2 + 1;
          [w1, w2] = [w1 - eta * residual * w2, w2 - eta * residual * w1];
        }
        const away = !(Math.abs(w1) < GONE && Math.abs(w2) < GONE);
        const slow = Math.min(1, Math.max(0, (step - SLOW[0]) / (SLOW[1] - SLOW[0])));
        const [color, alpha] = away ? [rgb.diverges, 0.4] : slow ? [rgb.stuck, 0.12 + 0.8 * Math.sqrt(slow)] : [rgb.converges, 0.12];
        image.data.set([...color, 255 * alpha], 4 * (row * size + column));
      }
    }
    context.putImageData(image, 0, 0);
  };

  // Drawing

  const element = (name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const line = (points, attributes) =>
    element("polyline", { points: points.map((p) => p.map((x) => x.toFixed(1)).join()).join(" "), fill: "none", ...attributes });
  const clip = (value) => Math.max(-5000, Math.min(5000, value)); // beyond the picture, and still a number for SVG
  const PAD = { left: 42, bottom: 34, top: 8, right: 8 };

  const frame = (svg, width, height, x, y) => {
    const bottom = height - PAD.bottom;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const axes = [[[PAD.left, PAD.top], [PAD.left, bottom], [width - PAD.right, bottom]]].map((p) => line(p, { stroke: "currentColor" }));
    const across = x.ticks.map(([value, text]) => element("text", { x: x.at(value), y: bottom + 15, "text-anchor": "middle" }, text));
    const up = y.ticks.map(([value, text]) => element("text", { x: PAD.left - 5, y: y.at(value) + 4, "text-anchor": "end" }, text));
    const names = [
      element("text", { x: (PAD.left + width - PAD.right) / 2, y: height - 3, "text-anchor": "middle" }, x.name),
      element("text", { x: PAD.left + 6, y: PAD.top + 12 }, y.name),
    ];
    svg.replaceChildren(...axes, ...across, ...up, ...names);
  };

  const begin = (section) => {
    const { eta, steps, colors } = JSON.parse(section.dataset.setting);
    const [plane, losses] = section.querySelectorAll("svg");
    const canvas = section.querySelector("canvas");
    const handle = section.querySelector("button.handle");
    const said = section.querySelector(".fate");
    const zoom = section.querySelector("button.zoom");
    let start = [1, 1];
    let view = "near";
    let shaded = "";

    const sides = () => {
      const width = plane.parentElement.clientWidth;
      return { width, inner: width - PAD.left - PAD.right };
    };
    const toPixel = ([w1, w2]) => {
      const { inner } = sides();
      return [PAD.left + (w1 / VIEWS[view] + 1) * inner / 2, PAD.top + (1 - w2 / VIEWS[view]) * inner / 2].map(clip);
    };
    const toWeights = (event) => {
      const box = plane.getBoundingClientRect();
      const { inner } = sides();
      return [
        VIEWS[view] * (2 * (event.clientX - box.left - PAD.left) / inner - 1),
        VIEWS[view] * (1 - 2 * (event.clientY - box.top - PAD.top) / inner),
      ];
    };

    const drawPlane = (path, fate) => {
      const { width, inner } = sides();
      const height = inner + PAD.top + PAD.bottom;
      const radius = VIEWS[view];
      const ticks = (view === "near" ? [-2, -1, 0, 1, 2] : [-6, -3, 0, 3, 6]).map((value) => [value, number(value)]);
      frame(plane, width, height, { ticks, name: "w₁", at: (v) => toPixel([v, 0])[0] }, { ticks, name: "w₂", at: (v) => toPixel([0, v])[1] });
      const inside = element("svg", { x: PAD.left, y: PAD.top, width: inner, height: inner, viewBox: `${PAD.left} ${PAD.top} ${inner} ${inner}` });
      const branch = Array.from({ length: 81 }, (_, i) => (1 / radius) * (radius * radius) ** (i / 80));
      for (const sign of [1, -1]) inside.append(line(branch.map((w) => toPixel([sign * w, -sign / w])), { class: "minima" }));
      inside.append(line(path.slice(0, 120).map(toPixel), { stroke: "currentColor", "stroke-width": 1.3 }));
      for (const point of path.slice(0, 120)) {
        const [cx, cy] = toPixel(point);
        inside.append(element("circle", { cx, cy, r: 2.6, fill: "currentColor" }));
      }
      const [x, y] = toPixel([0, 0]);
      inside.append(
        element("path", { d: `M${x - 6},${y}h12M${x},${y - 6}v12`, stroke: "currentColor", "stroke-width": 2 }),
        element("text", { x: x - 8, y: y + 18, "text-anchor": "end" }, "saddle"),
        element("text", { x: toPixel([radius, 0])[0] - 6, y: toPixel([0, -1 / radius])[1] - 9, "text-anchor": "end", class: "minima" }, "minima"),
      );
      plane.append(inside);
      Object.assign(canvas.style, { left: `${PAD.left}px`, top: `${PAD.top}px`, width: `${inner}px`, height: `${inner}px` });
      if (shaded !== view) shade(canvas, radius, eta, colors);
      shaded = view;
      const [left, top] = toPixel(start);
      Object.assign(handle.style, { left: `${left}px`, top: `${top}px` });
    };

    const drawLoss = (path, fate) => {
      const width = losses.parentElement.clientWidth;
      const height = Math.max(190, Math.min(sides().inner + PAD.top + PAD.bottom, 420, width));
      const bottom = height - PAD.bottom;
      const [low, high] = [-16, 4];
      const x = { name: "step", ticks: [0, 50, 100, 150, 200].map((v) => [v, v]), at: (v) => PAD.left + 6 + v * (width - PAD.left - PAD.right - 20) / 200 };
      const powers = [[0, "1"], [-4, "10⁻⁴"], [-8, "10⁻⁸"], [-12, "10⁻¹²"], [-16, "10⁻¹⁶"]];
      const y = { name: "loss", ticks: powers, at: (v) => PAD.top + (high - v) * (bottom - PAD.top) / (high - low) };
      frame(losses, width, height, x, y);
      const value = ([w1, w2]) => Math.min(high + 1, Math.max(low, Math.log10(loss(w1, w2) || 1e-300)));
      const points = path.slice(0, 201).map((point, step) => [x.at(step), y.at(value(point))]);
      losses.append(line(points, { stroke: colors[fate.kind], "stroke-width": 2 }));
    };

    const draw = () => {
      const path = descend(...start, eta, steps);
      const fate = fateOf(path);
      drawPlane(path, fate);
      drawLoss(path, fate);
      const words = inWords(start, fate, loss(...path.at(-1)));
      if (said.textContent !== words) said.textContent = words;
      section.dataset.fate = fate.kind;
      section.dataset.start = start.join();
      handle.setAttribute("aria-label", `Start at ${number(start[0])}, ${number(start[1])}: drag it, or move it with the arrow keys`);
      zoom.textContent = view === "near" ? "Zoom out" : "Zoom in";
      for (const button of section.querySelectorAll("[data-to]")) button.setAttribute("aria-pressed", button.dataset.to === start.join());
    };
    const put = (to, { snap = 0.01, keep = false } = {}) => {
      start = to.map((w) => Math.max(-VIEWS.wide, Math.min(VIEWS.wide, Math.round(w / snap) * snap))).map((w) => Number(w.toFixed(2)));
      if (start.some((w) => Math.abs(w) > VIEWS.near)) view = "wide";
      else if (!keep) view = "near";
      draw();
    };
    // The address follows once a hand has come to rest: browsers limit how often it may change.
    let waiting;
    const note = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => history.replaceState(history.state, "", `#start=${start.join()}`), 150);
    };
    const move = (to, how) => { put(to, how); note(); };
    const follow = () => {
      const given = /^#start=(-?\d+(?:\.\d+)?),(-?\d+(?:\.\d+)?)$/.exec(decodeURIComponent(location.hash));
      if (given) put([Number(given[1]), Number(given[2])]);
      return Boolean(given);
    };

    const drag = (event) => move(toWeights(event), { snap: view === "near" ? 0.01 : 0.05, keep: true });
    const hold = (target) => (event) => {
      if (event.button !== 0) return;
      target.setPointerCapture(event.pointerId);
      drag(event);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    };
    // A finger on the plane scrolls the page, so there only the handle can be dragged; a tap puts the start.
    plane.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse") hold(plane)(event); });
    plane.addEventListener("click", (event) => { if (event.pointerType !== "mouse") drag(event); });
    handle.addEventListener("pointerdown", hold(handle));
    for (const target of [plane, handle]) {
      target.addEventListener("pointermove", (event) => { if (target.hasPointerCapture(event.pointerId)) drag(event); });
    }
    handle.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.01 : view === "near" ? 0.05 : 0.2;
      const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation(); // the theme turns pages with the arrow keys
      move([start[0] + by[0], start[1] + by[1]], { keep: true });
    });
    for (const button of section.querySelectorAll("[data-to]")) button.addEventListener("click", () => move(button.dataset.to.split(",").map(Number)));
    section.querySelector("button.surprise").addEventListener("click", () => {
      const [angle, radius] = [2 * Math.PI * Math.random(), VIEWS.wide * Math.sqrt(Math.random())];
      move([radius * Math.cos(angle), radius * Math.sin(angle)]);
      view = "wide";
      draw();
    });
    zoom.addEventListener("click", () => {
      view = view === "near" ? "wide" : "near";
      if (view === "near" && start.some((w) => Math.abs(w) > VIEWS.near)) return move([1, 1]);
      draw();
    });

    // The picture that needs no script makes room; its caption stays.
    const still = document.querySelector("figure.firststep > [role=img]");
    still.before(section);
    still.style.display = "none";
    section.hidden = false;
    if (!follow()) draw();
    addEventListener("hashchange", follow);
    new ResizeObserver(draw).observe(section);
    section.dataset.ready = "true";
  };

  window.firststepLandscape = { descend };
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("section.landscape").forEach(begin));
})();
