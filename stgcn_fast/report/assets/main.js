"use strict";
// The controls of the player, the figures at the top, and what happens when.

(() => {
  const { data, find, make, state } = report;
  const player = data.clips.length ? new report.Player(find("body")) : null;

  report.player = player;

  const fill = (select, options) => {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  };

  const clipText = (place) => {
    const { row, maps } = data.clips[place];
    const marks = `${report.wrong(row) ? " ✗" : ""}${data.explain && !maps ? " (no maps)" : ""}`;
    return `${data.rows.names[row] || `clip ${row}`}${marks}`;
  };

  const ofClass = (place, number) => {
    const { row, explained } = data.clips[place];
    return number < 0 || data.rows.labels[row] === number || explained === number;
  };

  const listClips = () => {
    const places = data.clips.map((_, place) => place).filter((place) => ofClass(place, state.cls));
    fill(find("clip"), places.map((place) => [place, clipText(place)]));
    find("clip").value = state.clip;
    return places;
  };

  // Shows a clip that something else than the list of clips points at.
  report.showClip = (place, play) => {
    const cls = ofClass(place, state.cls) ? state.cls : -1;
    report.set({ clip: place, cls, frame: 0, playing: play ? true : state.playing });
  };

  const verdict = () => {
    const line = find("verdict");
    line.replaceChildren();
    if (state.clip < 0) return;
    const { row, explained } = data.clips[state.clip];
    const { labels, predictions, scores } = data.rows;
    const score = scores[row] === null ? "" : ` (${report.percent(scores[row])})`;
    const known = labels[row] >= 0;
    const said = make("strong", { class: !known ? undefined : report.wrong(row) ? "wrong" : "right" },
      `predicted ${report.className(predictions[row])}${score}`);
    line.append(said, known ? `, true ${report.className(labels[row])}` : "");
    if (explained !== null && explained !== predictions[row]) {
      line.append(`; maps explain ${report.className(explained)}`);
    }
  };

  const showPersons = () => {
    const count = player.clip ? player.clip.persons : 1;
    fill(find("person"), [[-1, "all"], ...Array.from({ length: count }, (_, i) => [i, String(i + 1)])]);
    if (state.person >= count) report.set({ person: -1 });
    find("person").value = state.person;
  };

  const showFrame = () => {
    find("frame").value = state.frame;
    find("time").textContent = `${state.frame + 1} of ${player.frames}`;
    const top = player.strongest(Math.min(state.frame, player.frames - 1), 3);
    find("top").textContent = top.length
      ? `Most focus: ${top.map(([joint, part]) => `${data.skeleton.joints[joint]} ${report.percent(part)}`).join(", ")}`
      : "";
    player.draw();
  };

  const changed = (names) => {
    if (!player) return;
    if (names.has("cls")) {
      find("class").value = state.cls;
      const places = listClips();
      if (places.length && !places.includes(state.clip)) report.set({ clip: places[0], frame: 0 });
    }
    if (names.has("clip")) {
      player.show(state.clip);
      find("clip").value = state.clip;
      find("frame").max = Math.max(player.frames - 1, 0);
      if (state.frame >= player.frames) report.set({ frame: 0 });
      showPersons();
      verdict();
      find("legend").hidden = !data.clips[state.clip].maps;
    }
    if (names.has("layer")) find("layer").value = state.layer;
    if (names.has("person")) find("person").value = state.person;
    if (names.has("clip") || names.has("layer")) player.drawStrip(find("strip"));
    if (names.has("playing")) {
      find("play").textContent = state.playing ? "Pause" : "Play";
      if (state.playing) requestAnimationFrame(tick);
    }
    if (["clip", "layer", "person", "frame"].some((name) => names.has(name))) showFrame();
  };

  let before = 0;
  const tick = (now) => {
    if (!state.playing) return;
    if (now - before >= 1000 / Number(find("speed").value)) {
      before = now;
      report.set({ frame: (state.frame + 1) % Math.max(player.frames, 1) });
    }
    requestAnimationFrame(tick);
  };

  const step = (by) =>
    report.set({ playing: false, frame: (state.frame + by + player.frames) % Math.max(player.frames, 1) });

  const stepLayer = (by) =>
    report.set({ layer: Math.min(Math.max(state.layer + by, 0), data.layers.length - 1) });

  const controls = () => {
    find("player").hidden = false;
    find("columns").classList.add("with-player");
    fill(find("class"), [[-1, "all classes"], ...data.classes.map((name, i) => [i, name])]);
    fill(find("layer"), data.layers.map((name, i) => [i, name]));
    fill(find("up"), report.axes().map((axis) => [axis, axis.replace("-", "−")]));
    find("up").value = player.up;
    find("legend").querySelector(".scale").style.background = report.gradient();
    for (const [id, name] of [["class", "cls"], ["clip", "clip"], ["layer", "layer"], ["person", "person"]]) {
      find(id).addEventListener("change", (event) => {
        const value = Number(event.target.value);
        report.set(name === "clip" ? { clip: value, frame: 0 } : { [name]: value });
      });
    }
    find("frame").addEventListener("input", (event) =>
      report.set({ frame: Number(event.target.value), playing: false }));
    find("play").addEventListener("click", () => report.set({ playing: !state.playing }));
    find("back").addEventListener("click", () => step(-1));
    find("on").addEventListener("click", () => step(1));
    find("names").addEventListener("change", (event) => {
      player.names = event.target.checked;
      player.draw();
    });
    find("up").addEventListener("change", (event) => {
      player.up = event.target.value;
      player.fit();
      player.draw();
    });
    find("turn").addEventListener("click", () => {
      player.reset();
      player.draw();
    });
    find("hint").textContent =
      `${player.deep ? "Drag to turn. " : ""}Shift and wheel to zoom. Space plays, ← and → step, [ and ] change the layer.`;
    const keys = {
      " ": () => report.set({ playing: !state.playing }),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      "[": () => stepLayer(-1),
      "]": () => stepLayer(1),
    };
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("select, input, button, a, .scroll") || event.ctrlKey || event.metaKey) return;
      const act = keys[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
  };

  const summary = () => {
    const entry = (value, text) => make("li", {}, make("strong", {}, value), make("span", {}, text));
    const items = [];
    const { explain, geometry, test } = data;
    if (data.rows.names.length) items.push(entry(data.rows.names.length, "clips"));
    else if (test) items.push(entry(test.clips, "test clips"));
    if (data.classes.length) items.push(entry(data.classes.length, "classes"));
    if (data.layers.length) items.push(entry(data.layers.length, "layers"));
    const accuracy = [explain && explain.accuracy, geometry && geometry.accuracy, test && test.top1]
      .find((value) => typeof value === "number");
    if (accuracy !== undefined) items.push(entry(report.percent(accuracy), "accuracy"));
    if (test && typeof test.top5 === "number") items.push(entry(report.percent(test.top5), "top-5"));
    if (geometry) {
      const { values, spearman } = geometry.smoothness.rw;
      const [first, last] = [values[0], values[values.length - 1]].map((value) => report.number(value));
      items.push(entry(`${first} → ${last}`, "smoothness error, first to last layer"));
      items.push(entry(report.number(spearman, 2), "its Spearman with depth"));
    }
    if (explain && explain.figures.faithfulness) {
      const { joints, layers } = explain.figures.faithfulness;
      const part = layers[data.layers[data.layers.length - 1]];
      items.push(entry(`${report.percent(part.most.accuracy_drop)} / ${report.percent(part.random.accuracy_drop)}`,
        `accuracy lost without ${joints} top / random joints`));
    }
    find("summary").append(...items);
  };

  const about = () => {
    const size = (find("data").textContent.length / 1e6).toFixed(1);
    const clips = data.clips.length
      ? `${data.clips.length} of ${data.rows.names.length} clips can be played, ${data.clips.filter((clip) => clip.maps).length} of them with maps. `
      : "";
    find("about").textContent =
      `${clips}${data.clips.length ? `The data of this page is ${size} MB; maps are rounded to 256 steps. ` : ""}` +
      "Nothing is loaded from elsewhere. " +
      `Charts by plotly.js ${Plotly.version}.`;
  };

  report.listeners.push(changed);
  summary();
  report.focusSection();
  report.importanceSection();
  report.smoothnessSection();
  report.graphSection();
  report.confusionSection();
  report.trustSection();
  report.studySections();
  report.tableSection();
  for (const section of document.querySelectorAll("section")) {
    find("contents").append(make("a", { href: `#${section.id}` }, section.firstChild.textContent));
  }
  about();
  if (player) {
    controls();
    listClips();
    report.set({ layer: Math.max(data.layers.length - 1, 0), clip: 0 });
  } else {
    report.set({ layer: Math.max(data.layers.length - 1, 0) });
  }
  document.body.dataset.ready = "yes";
})();
