"use strict";
// Crystals on canvases: shaded spheres and the edges of the cell, drawn from back to front; drag or arrow keys turn them.
(() => {
  const source = document.getElementById("crystals");
  if (!source) return;
  const { elements, top, crystals } = JSON.parse(source.textContent);

  const BLUE = [33, 102, 172], MIDDLE = [247, 247, 247], RED = [178, 24, 43];  // ends and middle of the colour scale
  const EDGE = "rgb(120, 134, 148)";
  const EYE = 3.2;  // distance of the eye from the centre, in radii of the crystal
  const ATOM = 0.62;  // drawn radius of an atom, in covalent radii
  const settings = { colour: top === null ? "element" : "charge", projection: "perspective" };

  // -- colours --------------------------------------------------------------------------------------------------------

  const mix = (a, b, share) => a.map((value, i) => Math.round(value + (b[i] - value) * share));
  const rgb = (colour) => `rgb(${colour.join(",")})`;

  /** Colour of a charge in e: blue below zero, red above. */
  function ofCharge(charge) {
    const share = Math.max(-1, Math.min(1, charge / top));
    return mix(MIDDLE, share < 0 ? BLUE : RED, Math.abs(share));
  }

  /** Colour of the i-th atom of a crystal; grey where its charge is not known. */
  function colourOf(crystal, i) {
    if (settings.colour === "element") return elements[crystal.z[i]][2];
    return crystal.q ? ofCharge(crystal.q[i]) : [160, 160, 160];
  }

  // -- geometry -------------------------------------------------------------------------------------------------------

  const turnX = (a) => [1, 0, 0, 0, Math.cos(a), -Math.sin(a), 0, Math.sin(a), Math.cos(a)];
  const turnY = (a) => [Math.cos(a), 0, Math.sin(a), 0, 1, 0, -Math.sin(a), 0, Math.cos(a)];
  const apply = (m, v) => [0, 3, 6].map((row) => m[row] * v[0] + m[row + 1] * v[1] + m[row + 2] * v[2]);

  function multiply(a, b) {
    const out = [];
    for (const row of [0, 3, 6])
      for (const column of [0, 1, 2])
        out.push(a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6]);
    return out;
  }

  /** Points in Å from the centre: corners of the cell by their three bits. */
  function cornersOf(cell) {
    const corners = [];
    for (let bits = 0; bits < 8; bits++) {
      const shares = [0, 1, 2].map((axis) => ((bits >> axis) & 1) - 0.5);
      corners.push([0, 1, 2].map((x) => shares[0] * cell[x] + shares[1] * cell[3 + x] + shares[2] * cell[6 + x]));
    }
    return corners;
  }

  // -- one crystal ----------------------------------------------------------------------------------------------------

  class View {
    constructor(canvas, crystal) {
      this.canvas = canvas;
      this.crystal = crystal;
      this.corners = cornersOf(crystal.cell);
      this.atoms = crystal.z.map((_, i) => crystal.xyz.slice(3 * i, 3 * i + 3));
      this.radius = Math.max(...this.corners.concat(this.atoms).map((v) => Math.hypot(...v))) + 0.8;
      this.reset();
      canvas.addEventListener("pointerdown", (event) => this.grab(event));
      canvas.addEventListener("pointermove", (event) => this.move(event));
      canvas.addEventListener("dblclick", () => { this.reset(); this.draw(); });
      canvas.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(canvas);
    }

    /** z up and the viewer a little to the right and above. */
    reset() {
      this.turn = multiply(turnX(0.35), multiply(turnY(-0.45), [1, 0, 0, 0, 0, 1, 0, -1, 0]));
    }

    rotate(x, y) {
      this.turn = multiply(multiply(turnX(y), turnY(x)), this.turn);
      this.draw();
    }

    grab(event) {
      this.canvas.setPointerCapture(event.pointerId);
      this.last = [event.clientX, event.clientY];
    }

    move(event) {
      if (!this.canvas.hasPointerCapture(event.pointerId)) return this.name(event);
      this.rotate((event.clientX - this.last[0]) / 90, -(event.clientY - this.last[1]) / 90);
      this.last = [event.clientX, event.clientY];
    }

    key(event) {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] }[event.key];
      if (!step) return;
      event.preventDefault();
      this.rotate(...step);
    }

    /** Tooltip of the atom under the pointer. */
    name(event) {
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const hit = this.drawn.findLast((one) => one.r && Math.hypot(one.x - x, one.y - y) < one.r);
      if (!hit) return this.canvas.removeAttribute("title");
      const charge = this.crystal.q ? ` ${this.crystal.q[hit.i] > 0 ? "+" : ""}${this.crystal.q[hit.i].toFixed(2)} e` : "";
      this.canvas.title = elements[this.crystal.z[hit.i]][0] + charge;
    }

    /** Place on the canvas, depth, and pixels per Å there. */
    project(point) {
      const [x, y, z] = apply(this.turn, point);
      const near = settings.projection === "perspective" ? EYE / (EYE - z / this.radius) : 1;
      const scale = (this.size / 2 / this.radius) * near * (settings.projection === "perspective" ? 0.9 : 1);
      return { x: this.size / 2 + x * scale, y: this.size / 2 - y * scale, z, scale };
    }

    /** Edges in short pieces, so that each piece finds its place between the atoms. */
    pieces() {
      const found = [];
      for (let bits = 0; bits < 8; bits++)
        for (let axis = 0; axis < 3; axis++) {
          if ((bits >> axis) & 1) continue;
          const a = this.corners[bits], b = this.corners[bits | (1 << axis)];
          const points = Array.from({ length: 13 }, (_, i) => this.project(a.map((v, x) => v + ((b[x] - v) * i) / 12)));
          for (let i = 0; i < 12; i++)
            found.push({ from: points[i], to: points[i + 1], z: (points[i].z + points[i + 1].z) / 2 });
        }
      return found;
    }

    draw() {
      const ratio = Math.min(window.devicePixelRatio || 1, 2);
      this.size = this.canvas.clientWidth || 240;
      if (this.canvas.width !== Math.round(this.size * ratio))
        this.canvas.width = this.canvas.height = Math.round(this.size * ratio);
      const ink = this.canvas.getContext("2d");
      ink.setTransform(ratio, 0, 0, ratio, 0, 0);
      ink.clearRect(0, 0, this.size, this.size);
      const atoms = this.atoms.map((atom, i) => {
        const place = this.project(atom);
        return { ...place, i, r: ATOM * elements[this.crystal.z[i]][1] * place.scale };
      });
      this.drawn = atoms.concat(this.pieces()).sort((a, b) => a.z - b.z);
      for (const one of this.drawn) one.r ? this.sphere(ink, one) : this.line(ink, one);
      this.axes(ink);
    }

    line(ink, { from, to }) {
      ink.strokeStyle = EDGE;
      ink.lineWidth = 1.1;
      ink.beginPath();
      ink.moveTo(from.x, from.y);
      ink.lineTo(to.x, to.y);
      ink.stroke();
    }

    sphere(ink, { x, y, r, i }) {
      const colour = colourOf(this.crystal, i);
      const light = ink.createRadialGradient(x - 0.35 * r, y - 0.4 * r, 0.05 * r, x, y, r);
      light.addColorStop(0, rgb(mix(colour, [255, 255, 255], 0.75)));
      light.addColorStop(0.45, rgb(colour));
      light.addColorStop(1, rgb(mix(colour, [0, 0, 0], 0.45)));
      ink.fillStyle = light;
      ink.beginPath();
      ink.arc(x, y, r, 0, 2 * Math.PI);
      ink.fill();
      ink.strokeStyle = "rgba(0, 0, 0, 0.35)";
      ink.lineWidth = 0.6;
      ink.stroke();
    }

    /** Names of the lattice vectors, beyond their ends. */
    axes(ink) {
      ink.fillStyle = EDGE;
      ink.font = "600 12px system-ui, sans-serif";
      ink.textAlign = "center";
      ink.textBaseline = "middle";
      ["a", "b", "c"].forEach((name, axis) => {
        const [start, end] = [this.corners[0], this.corners[1 << axis]];
        const length = Math.hypot(...end.map((v, x) => v - start[x]));
        const { x, y } = this.project(end.map((v, i) => v + ((v - start[i]) / length) * 0.9));
        ink.fillText(name, x, y);
      });
    }
  }

  // -- the page -------------------------------------------------------------------------------------------------------

  const canvases = [...document.querySelectorAll("canvas[data-crystal]")];
  const views = canvases.map((canvas) => new View(canvas, crystals[Number(canvas.dataset.crystal)]));
  document.getElementById("tools").addEventListener("change", (event) => {
    settings[event.target.name] = event.target.value;
    views.forEach((view) => view.draw());
  });
  const scale = document.getElementById("scale");
  if (scale) scale.style.background = `linear-gradient(to right, ${[BLUE, MIDDLE, RED].map(rgb).join(",")})`;
  views.forEach((view) => view.draw());
})();
