"use strict";
// Answers the page's own requests in the browser: what /v1/models and /v1/predict answer, without a server.
(() => {
  const EARLY = 1e-4, MOST_MOMENTS = 1000, PICTURE = 96;
  const text = (id) => document.getElementById(id).textContent;
  const bytes = (id) => Uint8Array.from(atob(text(id)), (char) => char.charCodeAt(0));
  const facts = JSON.parse(text("facts"));
  const { model, input, sampling, trust } = facts;
  const clip = sampling.clip ?? null;
  let opening = null;

  class Refused extends Error {}

  async function open() {
    const code = URL.createObjectURL(new Blob([bytes("runtime")], { type: "text/javascript" }));
    const runtime = await import(code);
    URL.revokeObjectURL(code);
    runtime.env.wasm.numThreads = 1;
    runtime.env.wasm.wasmBinary = bytes("wasm").buffer;
    const session = await runtime.InferenceSession.create(bytes("weights"), { executionProviders: ["wasm"] });
    for (const id of ["runtime", "wasm", "weights"]) document.getElementById(id).remove();
    return { session, Tensor: runtime.Tensor };
  }

  async function run(pixels, height, width) {
    const { session, Tensor } = await (opening ??= open());
    const clips = clip === null ? [] : [clip.frames];
    return session.run({ frames: new Tensor("uint8", pixels, [1, ...clips, height, width, 3]) });
  }

  // One row of the answers to an image, or to the frames of a clip, of one size; the score is behind it if there is one.
  function row(found) { return [...found[facts.output].data, ...(facts.scored ? found[facts.scored].data : [])].map(Number); }

  async function ask(pixels, height, width) { return row(await run(pixels, height, width)); }

  // As Bundle.maps and Bundle.seen have it.
  function mapped(found, answer, top, height, width) {
    const [, count, rows, columns] = found.maps.dims, values = found.maps.data, short = Math.min(height, width);
    const share = input.size / input.square, crop = input.fit === "crop";
    const wide = crop ? share * short / width : share, tall = crop ? share * short / height : share;
    const order = [...Array(count).keys()].sort((one, other) => answer[other] - answer[one] || one - other);
    return {
      method: facts.method, left: (1 - wide) / 2, top: (1 - tall) / 2, width: wide, height: tall,
      of: (model.form === "number" ? [...Array(count).keys()] : order.slice(0, top)).map((place) => {
        const map = [...values.slice(place * rows * columns, (place + 1) * rows * columns)], most = Math.max(...map);
        const shares = map.map((value) => most > 0 ? Math.max(value, 0) / most : 0);
        return { name: model.classes[place],
          values: [...Array(rows).keys()].map((one) => shares.slice(one * columns, (one + 1) * columns)) };
      }),
    };
  }

  function rgb(source, height, width) {
    if (height * width > facts.limits.pixels) throw new Refused(`${width} x ${height} pixels are too many`);
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0, width, height);
    const rgba = context.getImageData(0, 0, width, height).data, pixels = new Uint8Array(3 * height * width);
    for (let from = 0, to = 0; from < rgba.length; from += 4) {
      pixels[to++] = rgba[from]; pixels[to++] = rgba[from + 1]; pixels[to++] = rgba[from + 2];
    }
    return { pixels, height, width, canvas };
  }

  async function small(canvas) {
    const scale = Math.min(1, PICTURE / Math.max(canvas.width, canvas.height));
    const made = document.createElement("canvas");
    made.width = Math.max(1, Math.round(scale * canvas.width));
    made.height = Math.max(1, Math.round(scale * canvas.height));
    made.getContext("2d").drawImage(canvas, 0, 0, made.width, made.height);
    return made.toDataURL("image/jpeg", 0.8);
  }

  async function image(file, top, maps) {
    if (clip !== null) throw new Refused("an image, but this model takes video clips");
    const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
      throw new Refused("this browser cannot decode it");
    });
    const seen = rgb(bitmap, bitmap.height, bitmap.width);
    bitmap.close();
    const found = await run(seen.pixels, seen.height, seen.width), answer = row(found);
    return { kind: "image", ...described(answer, top), picture: await small(seen.canvas),
      ...(maps ? { maps: mapped(found, answer, top, seen.height, seen.width) } : {}) };
  }

  function happened(video, name) {
    return new Promise((done, failed) => {
      video.addEventListener(name, done, { once: true });
      video.addEventListener("error", () => failed(new Refused("this browser cannot decode it")), { once: true });
    });
  }

  async function seek(video, moment) {
    const sought = happened(video, "seeked");
    video.currentTime = Math.max(moment + EARLY, 0);
    await sought;
  }

  async function video(file, top, every) {
    const shown = document.createElement("video"), place = URL.createObjectURL(file);
    Object.assign(shown, { muted: true, preload: "auto", src: place });
    try {
      await happened(shown, "loadeddata");
      if (!Number.isFinite(shown.duration)) await seek(shown, 1e6); // a recording states its length at its end
      const length = shown.duration;
      if (!(length <= facts.limits.seconds)) throw new Refused(`a video of ${length} s is too long`);
      if (every !== null && length / every > MOST_MOMENTS) throw new Refused("moments are too close for this video");
      const rows = [];
      let picture = null;
      for (const moments of views(length)) {
        const { row, canvas } = await look(shown, moments, length);
        rows.push(row);
        picture ??= await small(canvas);
      }
      const moments = every === null ? {} : { moments: await timeline(shown, length, every, top) };
      return { kind: "video", seconds: length, ...described(averaged(rows), top), picture, ...moments };
    } finally {
      shown.removeAttribute("src");
      URL.revokeObjectURL(place);
    }
  }

  async function look(shown, moments, length) {
    const size = 3 * shown.videoHeight * shown.videoWidth, pixels = new Uint8Array(size * moments.length);
    let canvas = null;
    for (const [place, moment] of moments.entries()) {
      await seek(shown, within(moment, length));
      const seen = rgb(shown, shown.videoHeight, shown.videoWidth);
      pixels.set(seen.pixels, place * size);
      if (place === moments.length >> 1) canvas = seen.canvas;
    }
    return { row: await ask(pixels, shown.videoHeight, shown.videoWidth), canvas };
  }

  // The same rule as toolkit.api.clips: the frame that is on show at each moment.
  function within(moment, length) {
    const loops = clip !== null && clip.short === "loop";
    return loops ? ((moment + EARLY) % length) - EARLY : Math.min(moment, length - EARLY);
  }

  function views(length) {
    if (clip === null) return [...Array(sampling.frames).keys()].map((view) => [(view + 0.5) * length / sampling.frames]);
    if (clip.sampling === "segments") {
      return [...Array(clip.clips).keys()].map((view) => segments(0, length, (2 * view + 1) / (2 * clip.clips)));
    }
    const room = Math.max(length - span(), 0);
    return [...Array(clip.clips).keys()].map((view) => strided(clip.clips === 1 ? room / 2 : room * view / (clip.clips - 1)));
  }

  function span() { return clip === null ? 0 : clip.sampling === "segments" ? sampling.span : clip.frames * clip.rate / clip.fps; }

  function strided(start) { return [...Array(clip.frames).keys()].map((number) => start + number * clip.rate / clip.fps); }

  function segments(start, length, place) {
    return [...Array(clip.frames).keys()].map((number) => start + (number + place) * length / clip.frames);
  }

  async function timeline(shown, length, every, top) {
    const found = [];
    for (let number = 0; number === 0 || number * every + span() <= length + EARLY; number++) {
      const start = number * every;
      const moments = clip === null ? [start] : clip.sampling === "segments" ? segments(start, span(), 0.5) : strided(start);
      const { row, canvas } = await look(shown, moments, length);
      const end = Math.min(start + span(), length);
      found.push({ start, end: Math.round(1000 * end) / 1000, ...described(row, top), picture: await small(canvas) });
    }
    return found;
  }

  function mean(numbers) { return numbers.reduce((sum, one) => sum + one, 0) / numbers.length; }

  // As toolkit.serving.bundle.views has it.
  function averaged(rows) {
    const means = rows[0].map((_, column) => mean(rows.map((row) => row[column])));
    if (clip === null || clip.average === "probabilities" || model.form === "number" || rows.length === 1) return means;
    const count = model.classes.length, columns = [...Array(count).keys()];
    if (model.form === "set") {
      const logits = columns.map((column) => mean(rows.map((row) => {
        const share = Math.min(Math.max(row[column], 1.2e-7), 1 - 1.2e-7);
        return Math.log(share / (1 - share));
      })));
      return [...logits.map((logit) => 1 / (1 + Math.exp(-logit))), ...means.slice(count)];
    }
    const logs = columns.map((column) => mean(rows.map((row) => Math.log(Math.max(row[column], 1.2e-38)))));
    const largest = Math.max(...logs), weights = logs.map((one) => Math.exp(one - largest));
    const sum = weights.reduce((one, other) => one + other, 0);
    return [...weights.map((weight) => weight / sum), ...means.slice(count)];
  }

  function described(row, top) {
    const names = model.classes, answer = row.slice(0, names.length);
    if (!row.every(Number.isFinite)) throw new Refused("the model answers with a number that is not finite");
    if (model.form === "number") return { values: names.map((output, place) => ({ output, value: answer[place] })) };
    const order = [...names.keys()].sort((one, other) => answer[other] - answer[one] || one - other);
    const limits = facts.thresholds;
    const named = limits === null ? [order[0]] : [...names.keys()].filter((place) => answer[place] >= limits[place]);
    const classes = order.slice(0, top).map((place) => ({ class: names[place], probability: answer[place] }));
    const { reject, conformal } = trust, most = Math.max(...answer), own = row[names.length];
    const score = { confidence: most, energy: own, similarity: most + reject?.weight * own }[reject?.score];
    return {
      prediction: named.map((place) => names[place]), classes,
      ...(reject ? { declined: score < reject.threshold } : {}),
      ...(conformal ? { plausible: names.filter((_, place) => answer[place] >= conformal.threshold) } : {}),
    };
  }

  async function answered(form) {
    const file = form.get("file"), every = Number(form.get("every")) || null;
    const top = Math.min(Math.max(Number(form.get("top")) || 3, 1), model.classes.length);
    const found = file.type.startsWith("video/") ? await video(file, top, every)
      : await image(file, top, form.get("maps") === "true");
    return { model: model.name, answers: [{ name: file.name, ...found }] };
  }

  const json = (said, status = 200) => new Response(JSON.stringify(said), { status });

  globalThis.local = async (path, options) => {
    if (path === "/v1/models") return json({ models: [model], limits: facts.limits, sources: [] });
    if (path.endsWith("/card")) return new Response(facts.card);
    try { return json(await answered(options.body)); }
    catch (error) { return json({ error: error instanceof Refused ? error.message : `it failed: ${error.message}` }, 422); }
  };
  document.getElementById("code").hidden = true;
  document.querySelector("footer").textContent = facts.footer;
})();
