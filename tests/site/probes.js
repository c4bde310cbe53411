// What the tests ask of an open page. Each function looks and reports; only `move` touches anything.
window.probes = (() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const brief = (element, length = 120) => element.textContent.trim().replace(/\s+/g, " ").slice(0, length);

  const textNodes = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) if (walker.currentNode.data.trim()) found.push(walker.currentNode);
    return found;
  };

  const mathematics = () => ({
    formulas: all(".math").length,
    bare: all(".math").filter((formula) => !formula.querySelector("mjx-container")).map((m) => brief(m)),
    errors: all("[data-mjx-error]").map((error) => error.dataset.mjxError),
  });

  // TeX, roles and dollars that a reader was not meant to see.
  const leftovers = () => {
    const raw = /\\[([\])]|\$\$|\$[^$\n]+\$|\{[a-z:]+\}`|:[a-z]+:`/;
    return textNodes(document.body)
      .filter((node) => raw.test(node.data))
      .filter((node) => !node.parentElement.closest("code, pre, script, style, mjx-container, svg"))
      .map((node) => node.data.trim().slice(0, 120));
  };

  const outputs = () => {
    const names = /<[\w.]+( object)? at 0x|<Figure size|<Axes|^\[(figure|explorable):|\b[VH]Box\(|interactive\(/;
    const shown = all(".cell_output .output");
    const failed = shown.filter((o) => o.matches(".stderr, .traceback, .error"));
    const unnamed = shown.filter((o) => o.matches(".text_plain") && names.test(o.textContent.trim()));
    return { count: shown.length, bad: [...failed, ...unnamed].map((o) => brief(o, 300)) };
  };

  const loneControls = () =>
    all(".bd-article :is(input, select, textarea), script[type*='jupyter.widget']")
      .filter((control) => !control.closest("section.explorable, .search-form, form"))
      .map((control) => control.outerHTML.slice(0, 200));

  // Icons stand in buttons and links that have words of their own; the opener's small picture is a copy of a figure below.
  const pictures = () =>
    [...all("img"), ...all(".bd-article svg")]
      .filter((picture) => !picture.closest("button, mjx-container, .opener .small") && !picture.matches("svg svg, .svg-inline--fa, .toggler"))
      .map((picture) => ({
        words: (picture.matches("img") ? picture.alt : picture.closest("[role=img]")?.getAttribute("aria-label")) ?? "",
        picture: picture.outerHTML.slice(0, 120),
      }));

  // Contrast as in WCAG 2.1: (L1 + 0.05) / (L2 + 0.05) with relative luminances, after laying colours over another.
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, behind(element.parentElement));
  };
  const luminance = (color) => color.map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (color, element) => {
    const under = behind(element);
    const [low, high] = [luminance(over(rgba(color), under)), luminance(under)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  const faintText = (least) => {
    const skip = "svg, .highlight, script, style, mjx-container, button, .headerlink, .search-button__kbd-shortcut, .bd-sidebar-secondary";
    return textNodes(document.querySelector("main"))
      .map((node) => ({ node, element: node.parentElement }))
      .filter(({ element }) => !element.closest(skip) && element.checkVisibility({ visibilityProperty: true }))
      .map(({ node, element }) => ({ node, ratio: contrast(getComputedStyle(element).color, element) }))
      .filter(({ ratio }) => ratio < least)
      .map(({ node, ratio }) => `${ratio.toFixed(2)}: ${node.data.trim().slice(0, 80)}`);
  };

  // Letters of figures (paths, from Matplotlib) and of explorables (text, from Vega), and shapes in pure white or black.
  const ink = () => {
    const letters = all("figure.firststep svg [id*='text_'] :is(use, path), section.explorable .chart svg text");
    const shapes = all("figure.firststep svg :is(path, rect, circle, use)");
    return {
      letters: letters.filter((letter) => !letter.closest("defs")).map((letter) => {
        const { fill } = getComputedStyle(letter);
        const picture = letter.closest("[role=img]");
        return { fill, follows: fill === getComputedStyle(picture).color, contrast: contrast(fill, picture) };
      }),
      pure: shapes.filter((shape) => !shape.closest("defs, clipPath, [id*='QuadMesh']"))
        .filter((shape) => ["rgb(255, 255, 255)", "rgb(0, 0, 0)"].includes(getComputedStyle(shape).fill))
        .filter((shape) => getComputedStyle(shape).fillOpacity !== "0")
        .map((shape) => shape.parentElement.id),
    };
  };

  // Parts that stick out of the window to the right and that no scrolling box brings into view.
  const lost = () => {
    const edge = innerWidth + 1;
    const reached = (element) => {
      for (let box = element.parentElement; box && box !== document.documentElement; box = box.parentElement) {
        const overflow = getComputedStyle(box).overflowX;
        if (overflow === "visible" || box.getBoundingClientRect().right > edge) continue;
        return overflow === "auto" || overflow === "scroll";
      }
      return false;
    };
    return all("main *")
      .filter((e) => !e.closest(".bd-sidebar-secondary, mjx-assistive-mml"))
      .filter((e) => !e.parentElement.closest("svg, mjx-container"))
      .filter((e) => {
        const box = e.getBoundingClientRect();
        return box.right > edge && box.width > 2 && box.height > 2 && !reached(e);
      })
      .map((e) => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}"> ${brief(e, 60)}`);
  };

  const sides = (style) => parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  const room = (block) => block.clientWidth - sides(getComputedStyle(block));

  // Formulas that can be scrolled although their line has room for them.
  const scrollingFormulas = () => all(".math, .math mjx-container").filter((box) => {
    const style = getComputedStyle(box);
    const scrolls = (overflow) => overflow === "auto" || overflow === "scroll";
    const aside = scrolls(style.overflowX) && box.scrollWidth > box.clientWidth;
    const down = scrolls(style.overflowY) && box.scrollHeight > box.clientHeight;
    const widths = [...box.querySelectorAll("mjx-math")].map((formula) => formula.getBoundingClientRect().width);
    // A displayed formula shares its line with its number; an inline one may take a line of its own.
    const line = box.matches("span.math") ? box.parentElement.closest("p, li, td, th, dd, div") : box;
    return down || (aside && Math.max(0, ...widths) <= room(line) - sides(style));
  }).map((box) => `${brief(box, 40)}: ${box.scrollWidth} in ${box.clientWidth}`);

  const controls = (section) => [...section.querySelectorAll(".control")];
  const inputs = (control) => [...control.querySelectorAll("input, select")];
  const last = (control) => {
    const [first, ...others] = inputs(control);
    return first.matches("select") ? first.options.length - 1 : first.type === "radio" ? others.length : Number(first.max);
  };
  const place = (control) => {
    const all = inputs(control);
    return all[0].type === "radio" ? all.findIndex((radio) => radio.checked) : Number(all[0].value);
  };
  const put = (control, to) => {
    const [first, ...others] = inputs(control);
    const touched = first.type === "radio" ? [first, ...others][to] : first;
    if (first.type === "radio") touched.checked = true;
    else touched.value = to;
    touched.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // The marks that can be seen, wherever they stand in the file: Vega keeps old ticks in front, and counts clips up.
  const picture = (svg) => [...svg.querySelectorAll("path, line, text, rect, circle, image")]
    .filter((mark) => !mark.closest("defs, [display='none']") && mark.getAttribute("d") !== "")
    .map((mark) => {
      const places = [];
      for (let group = mark.parentElement; group !== svg; group = group.parentElement) {
        places.unshift(group.getAttribute("transform") ?? "");
      }
      return places.join("") + mark.outerHTML.replace(/ (aria-[a-z]+|clip-path)="[^"]*"/g, "");
    })
    .sort();

  const shows = (section) => ({
    drawn: Number(section.dataset.drawn),
    chart: picture(section.querySelector(".chart svg")),
    facts: [...section.querySelectorAll(".facts dd")].map((fact) => fact.textContent),
    verdict: section.querySelector(".facts").className,
    values: controls(section).map((control) =>
      (control.querySelector("option:checked, output, input:checked + span")).textContent),
  });

  const until = async (condition, seconds = 30) => {
    const end = performance.now() + 1000 * seconds;
    while (!condition() && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 2));
  };

  // Put every control to a place on its scale, as a reader's hand does, and wait until that is drawn.
  const move = async (id, places, position) => {
    const section = document.getElementById(id);
    controls(section).forEach((control, i) => {
      if (place(control) !== places[i]) put(control, places[i]);
    });
    await until(() => Number(section.dataset.drawn) === position);
    return shows(section);
  };

  // Drag every control from one end of its scale to the other, faster than anything can be drawn.
  const sweep = (id) => controls(document.getElementById(id)).forEach((control) => {
    for (let to = 0; to <= last(control); to++) put(control, to);
  });

  return {
    mathematics, leftovers, outputs, loneControls, pictures, faintText, ink, lost, move, scrollingFormulas, sweep,
    shows: (id) => shows(document.getElementById(id)),
  };
})();
