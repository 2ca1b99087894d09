// The map moves, grows and says what lies under the pointer. Without this script the drawing stands as it is.
(() => {
  "use strict";
  const svg = document.getElementById("finest"), frame = svg.closest(".frame"), box = svg.closest(".mapbox");
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const scale = frame.querySelector(".scale"), scaleText = scale.nextElementSibling;
  const bar = box.querySelector(".map-bar"), said = box.querySelector("output"), level = bar.querySelector("select");
  const home = svg.getAttribute("viewBox").split(" ").map(Number), fingers = new Map();
  const rows = data.maps.map((map) => {
    const byRow = new Map();
    for (const run of map.runs) (byRow.get(run[0]) || byRow.set(run[0], []).get(run[0])).push(run);
    return byRow;
  });
  const marks = new Map();
  for (const [z, x, y, text] of data.marks) {
    const place = `${z}/${x}/${y}`;
    marks.set(place, [...(marks.get(place) || []), text]);
  }
  let view = home.slice(), pinch = 0, moved = false;

  const show = () => {
    for (const axis of [0, 1]) {
      const most = home[axis] + home[axis + 2] - view[axis + 2];
      view[axis] = Math.min(Math.max(view[axis], home[axis]), most);
    }
    svg.setAttribute("viewBox", view.map((value) => value.toFixed(3)).join(" "));
    const metres = (data.metres * view[2]) / home[2], power = 10 ** Math.floor(Math.log10(metres / 4));
    const length = Math.max(...[1, 2, 5].map((step) => step * power).filter((value) => value <= metres / 4));
    scale.style.width = `${(100 * length) / metres}%`;
    const shown = length < 1000 ? `${+length.toPrecision(2)} m` : `${+(length / 1000).toPrecision(3)} km`;
    scaleText.textContent = `${shown} at the middle latitude`;
    svg.style.touchAction = view[2] < home[2] ? "none" : "pan-y";
  };
  const grow = (factor, [x, y]) => {
    const width = Math.min(home[2], Math.max(home[2] / data.most, view[2] * factor)), ratio = width / view[2];
    view = [x - (x - view[0]) * ratio, y - (y - view[1]) * ratio, width, view[3] * ratio];
    show();
  };
  const middle = () => [view[0] + view[2] / 2, view[1] + view[3] / 2];
  const placeOf = (event) => {
    const at = svg.getBoundingClientRect();
    return [
      view[0] + ((event.clientX - at.left) / at.width) * view[2],
      view[1] + ((event.clientY - at.top) / at.height) * view[3],
    ];
  };
  const tell = ([x, y]) => {
    const map = data.maps[level.selectedIndex], from = data.frame;
    const across = from.left + x / from.scale, down = from.top + y / from.scale;
    const cell = 2 ** (map.level - from.level), tile = 2 ** (map.zoom - from.level), world = 2 ** map.zoom;
    const column = Math.floor(across * tile), row = Math.floor(down * tile);
    const place = `${map.zoom}/${((column % world) + world) % world}/${row}`;
    const cellX = Math.floor(across * cell), cellY = Math.floor(down * cell);
    const run = (rows[level.selectedIndex].get(cellY) || []).find((r) => r[1] <= cellX && cellX < r[1] + r[2]);
    const words = [place];
    if (!run) words.push("outside the area");
    else {
      const [, , , present, expected, date, source] = run, side = 2 ** (map.zoom - map.level);
      if (side > 1) words.push(`in this square of ${side} × ${side} tiles ${present} of ${expected} are there`);
      else words.push(present ? "there" : "missing");
      if (present) words.push(date < 0 ? "date unknown" : `${side > 1 ? "oldest " : ""}captured ${data.dates[date]}`);
      if (present && data.sources[source]) words.push(`from ${data.sources[source]}`);
      words.push(...(marks.get(place) || []));
    }
    said.textContent = words.join(", ");
  };

  bar.hidden = false;
  frame.tabIndex = 0;
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-label", "Map. Arrow keys move, plus and minus zoom, 0 shows all.");
  bar.addEventListener("click", (event) => {
    const act = event.target.dataset.act;
    if (act === "all") view = home.slice();
    if (act) grow({ in: 0.5, out: 2, all: 1 }[act], middle());
    if (act) tell(middle());
  });
  level.addEventListener("change", () => tell(middle()));
  frame.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const factor = { "+": 0.5, "=": 0.5, "-": 2, _: 2 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(step || factor || event.key === "0")) return;
    event.preventDefault();
    if (step) view = [view[0] + step[0] * view[2] * 0.15, view[1] + step[1] * view[3] * 0.15, view[2], view[3]];
    if (event.key === "0") view = home.slice();
    grow(factor || 1, middle());
    tell(middle());
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !frame.contains(document.activeElement)) return;
    event.preventDefault();
    grow(event.deltaY < 0 ? 0.8 : 1.25, placeOf(event));
  }, { passive: false });
  svg.addEventListener("dblclick", (event) => grow(0.5, placeOf(event)));
  svg.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    moved = false;
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return tell(placeOf(event));
    const [was, is] = [placeOf(before), placeOf(event)];
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const [one, other] = [...fingers.values()];
      const apart = Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const [a, b] = [placeOf(one), placeOf(other)];
      if (pinch) grow(pinch / apart, [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
      pinch = apart;
    } else if (view[2] < home[2]) {
      moved = true;
      view = [view[0] + was[0] - is[0], view[1] + was[1] - is[1], view[2], view[3]];
      show();
    }
  });
  for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, (event) => {
    fingers.delete(event.pointerId);
    pinch = 0;
    if (!moved) tell(placeOf(event));
  });
  show();
})();
