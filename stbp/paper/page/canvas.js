// The pad to draw on, and what the network makes of it, step by step.
(function () {
  const place = document.getElementById("canvas");
  if (!place) return;
  const net = unpack(JSON.parse(document.getElementById("network").textContent));
  const part = (name) => place.querySelector(`[data-part="${name}"]`);
  const [pad, input, hidden, output] = ["pad", "input", "hidden", "output"].map(part);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const EXAMPLE = [[
    [0.3, 0.24], [0.42, 0.15], [0.58, 0.15], [0.69, 0.24], [0.69, 0.36], [0.6, 0.45], [0.46, 0.48], [0.6, 0.51],
    [0.71, 0.61], [0.71, 0.75], [0.6, 0.85], [0.44, 0.86], [0.3, 0.77],
  ]];
  let strokes = EXAMPLE, example = true, sample = 0, image = normalise(strokes), steps = [], shown = 0, timer = 0;

  function pen(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  function colours() {
    const style = getComputedStyle(place);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  }

  function drawPad(colour) {
    const context = pen(pad, 1, 1);
    [context.lineWidth, context.lineCap, context.lineJoin] = [0.08, "round", "round"];
    context.strokeStyle = colour(example ? "muted" : "ink");
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.lineTo(...stroke[stroke.length - 1]);
      context.stroke();
    }
  }

  function drawInput(colour) {
    const context = pen(input, 28, 28), now = shown ? steps[shown - 1][0] : [];
    context.fillStyle = colour("blue");
    image.forEach((value, i) => {
      context.globalAlpha = 0.3 * (value / 255);
      if (value) context.fillRect(i % 28, Math.floor(i / 28), 1, 1);
    });
    context.globalAlpha = 1;
    for (const i of now) context.fillRect((i % 28) + 0.1, Math.floor(i / 28) + 0.1, 0.8, 0.8);
  }

  function drawRaster(canvas, layer, colour, tint) {
    const N = net.layers[layer - 1].bias.length, context = pen(canvas, net.T, N);
    context.fillStyle = colour("sunk");
    if (shown < net.T) context.fillRect(shown, 0, net.T - shown, N);
    for (let t = 0; t < shown; t++) {
      for (const n of steps[t][layer]) {
        context.fillStyle = tint(n);
        context.fillRect(t + 0.08, n + (N > 50 ? 0 : 0.12), 0.84, N > 50 ? 1.6 : 0.76);
      }
    }
  }

  function answer() {
    const counts = net.classes.map(() => 0);
    for (const fired of steps.slice(0, shown)) for (const k of fired[fired.length - 1]) counts[k]++;
    const most = Math.max(...counts);
    return { counts, most, best: most ? counts.indexOf(most) : -1 };
  }

  function draw() {
    const colour = colours(), { counts, most, best } = answer(), last = net.layers.length;
    drawPad(colour);
    drawInput(colour);
    drawRaster(hidden, 1, colour, () => colour("blue"));
    drawRaster(output, last, colour, (n) => colour(n === best ? "red" : "muted"));
    part("counts").querySelectorAll("li").forEach((row, k) => {
      row.classList.toggle("best", k === best);
      row.querySelector(".bar").style.setProperty("--share", counts[k] / net.T);
      row.querySelector(".count").textContent = counts[k];
    });
    const silent = shown ? "no output neuron has fired" : strokes.length ? "not started" : "draw a digit";
    part("answer").textContent = best < 0 ? "–" : net.classes[best];
    const [a, b] = counts.slice().sort((p, q) => q - p);
    part("state").textContent = `step ${shown} of ${net.T}: ` +
      (best < 0 ? silent : `${most} spike${most > 1 ? "s" : ""}, ${a - b} ahead of the next class`);
    part("play").textContent = timer ? "Pause" : "Play";
    part("step").disabled = part("play").disabled = part("again").disabled = steps.length === 0;
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
  }

  function play() {
    stop();
    if (steps.length === 0) return;
    if (shown === net.T) shown = 0;
    if (still.matches) shown = net.T;
    else {
      timer = setInterval(() => {
        shown++;
        if (shown >= net.T) stop();
        draw();
      }, 90);
    }
    draw();
  }

  // The drawing through the whole window; `from` steps of it are shown at once.
  function think(from) {
    stop();
    image = normalise(strokes);
    steps = strokes.length ? run(net, image, sample) : [];
    shown = Math.min(from, steps.length);
    draw();
  }

  function at(event) {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  let drawing = false;
  pad.addEventListener("pointerdown", (event) => {
    if (example) strokes = [];
    stop();
    [example, drawing] = [false, true];
    strokes = [...strokes, [at(event)]];
    pad.setPointerCapture(event.pointerId);
    drawPad(colours());
  });
  pad.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    strokes[strokes.length - 1].push(at(event));
    drawPad(colours());
  });
  for (const end of ["pointerup", "pointercancel"]) {
    pad.addEventListener(end, () => {
      if (!drawing) return;
      drawing = false;
      think(0);
      play();
    });
  }
  part("play").addEventListener("click", () => {
    if (!timer) return play();
    stop();
    draw();
  });
  part("step").addEventListener("click", () => {
    stop();
    shown = shown >= net.T ? 1 : shown + 1;
    draw();
  });
  part("again").addEventListener("click", () => {
    sample++;
    think(0);
    play();
  });
  part("clear").addEventListener("click", () => {
    [strokes, example, sample] = [[], false, 0];
    think(0);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("resize", draw);
  window.addEventListener("beforeprint", draw);
  window.stbp = { net, run, normalise, philox, encode, advance, atRest };
  think(net.T);
})();
