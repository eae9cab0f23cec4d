"use strict";
// The sections of charts: each is there when its data is.

(() => {
  const { data, make } = report;

  report.section = (id, title, text) => {
    const section = make("section", { id }, make("h2", {}, title));
    if (text) section.append(make("p", {}, text));
    report.find("sections").append(section);
    return section;
  };

  const host = (parent) => {
    const element = make("div", { class: "chart" });
    element.style.minHeight = "240px";
    parent.append(element);
    return element;
  };

  // Buttons of which one is pressed; chosen() tells which.
  const choice = (parent, names, pressed, act) => {
    let current = pressed;
    const row = make("p", { class: "buttons" });
    const buttons = names.map(([key, text]) => {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        current = key;
        show();
        act();
      });
      return [key, button];
    });
    const show = () => buttons.forEach(([key, button]) => button.setAttribute("aria-pressed", key === current));
    show();
    row.append(...buttons.map(([, button]) => button));
    parent.append(row);
    return () => current;
  };

  const heading = (parent) => parent.appendChild(make("h3"));

  // The class whose means are shown where all are chosen: the clip's.
  const shownClass = () => {
    const { cls, clip } = report.state;
    if (cls >= 0) return cls;
    return clip >= 0 && data.clips[clip].explained !== null ? data.clips[clip].explained : 0;
  };

  const hasClass = (layer, number) => {
    const { shape, values } = report.unpack(data.explain.classImportance);
    return !Number.isNaN(values[(layer * shape[1] + number) * shape[2]]);
  };

  report.focusSection = () => {
    if (!data.explain) return;
    const section = report.section("focus", "Joints over time",
      "Where the score of a class comes from, joint by joint and frame by frame. Choose a layer by its picture; " +
      "click a frame to go there.");
    const anyMaps = data.clips.some((clip) => clip.maps);
    const mode = choice(section, [["clip", "this clip"], ["class", "mean of its class"]],
      anyMaps ? "clip" : "class", () => {
        drawThumbs();
        draw();
      });
    const thumbs = section.appendChild(make("div", { class: "thumbs" }));
    const title = heading(section);
    const chart = host(section);
    const map = (layer) => {
      const own = mode() === "clip" ? report.clipMap(report.state.clip, layer, report.state.person) : null;
      return own || report.classMap(shownClass(), layer);
    };
    const draw = () => {
      const { layer, clip } = report.state;
      const found = map(layer);
      const own = found.step !== null;
      const step = own ? found.step : 1;
      const z = data.skeleton.joints.map((_, joint) =>
        Array.from({ length: found.frames }, (_, frame) => found.at(joint, frame)));
      const texts = z.map((row, joint) => row.map((value, frame) =>
        `${report.plain(data.skeleton.joints[joint])}, frame ${Math.round(frame * step)}<br>${value.toPrecision(3)}`));
      const name = own
        ? data.rows.names[data.clips[clip].row]
        : `mean of ${report.className(shownClass())}`;
      title.textContent = `${data.layers[layer]}: ${name}`;
      report.heatmap(chart, {
        z, texts, label: "focus",
        x: { start: step / 2 - 0.5, step, title: own ? "frame" : "frame of the layer", cursor: own ? report.state.frame : undefined },
        y: { names: data.skeleton.joints },
        pick: (frame) => own && report.set({ frame: Math.max(0, Math.round(frame)), playing: false }),
      });
    };
    const drawThumbs = () => {
      data.layers.forEach((_, layer) => {
        const button = thumbs.children[layer];
        const found = map(layer);
        const canvas = button.firstChild;
        [canvas.width, canvas.height] = [found.frames, found.joints];
        const pen = canvas.getContext("2d");
        const picture = pen.createImageData(found.frames, found.joints);
        let largest = 1e-30;
        for (let v = 0; v < found.joints; v += 1) {
          for (let t = 0; t < found.frames; t += 1) largest = Math.max(largest, found.at(v, t));
        }
        for (let v = 0; v < found.joints; v += 1) {
          for (let t = 0; t < found.frames; t += 1) {
            picture.data.set([...report.shade(found.at(v, t) / largest), 255], 4 * (v * found.frames + t));
          }
        }
        pen.putImageData(picture, 0, 0);
        button.setAttribute("aria-pressed", layer === report.state.layer);
      });
    };
    data.layers.forEach((name, layer) => {
      const button = make("button", { type: "button" }, make("canvas"), make("span", {}, name));
      button.addEventListener("click", () => report.set({ layer }));
      thumbs.append(button);
    });
    report.lazily(thumbs, ["clip", "layer", "cls", "person"], drawThumbs);
    report.lazily(chart, ["clip", "layer", "cls", "person"], draw);
    // Moving a line takes plotly some milliseconds: not at every frame that is played.
    let last = 0;
    report.listeners.push((changed) => {
      if (!changed.has("frame") || !chart.layout) return;
      const now = performance.now();
      if (report.state.playing && now - last < 120) return;
      last = now;
      report.moveCursor(chart, report.state.frame);
    });
  };

  report.importanceSection = () => {
    if (!data.explain) return;
    const section = report.section("importance", "Importance of joints",
      "Mean focus over the frames of a clip; of a class, over its clips. Each class is scaled to its largest joint. " +
      "Click a layer or a class to choose it.");
    const pair = section.appendChild(make("div", { class: "pair" }));
    const [left, right] = [pair.appendChild(make("div")), pair.appendChild(make("div"))];
    const [leftTitle, rightTitle] = [heading(left), heading(right)];
    const [byLayer, byClass] = [host(left), host(right)];
    const joints = { names: data.skeleton.joints };
    const text = (row, z) => z.map((line, i) => line.map((value, joint) =>
      `${report.plain(row(i))}<br>${report.plain(joints.names[joint])}: ${report.number(value)}`));
    report.lazily(byLayer, ["cls"], () => {
      const { cls } = report.state;
      const z = data.layers.map((_, layer) => importance(layer, cls));
      leftTitle.textContent = cls < 0 ? "Layers, all clips" : `Layers, ${report.className(cls)}`;
      report.heatmap(byLayer, {
        z, x: joints, y: { names: data.layers }, texts: text((i) => data.layers[i], z), range: [0, 1],
        pick: (_, layer) => report.set({ layer }),
      });
    });
    report.lazily(byClass, ["layer"], () => {
      const { layer } = report.state;
      const present = data.classes.map((_, i) => i).filter((i) => hasClass(layer, i));
      const z = present.map((i) => importance(layer, i));
      rightTitle.textContent = `Classes, ${data.layers[layer]}`;
      report.heatmap(byClass, {
        z, x: joints, y: { names: present.map((i) => data.classes[i]) }, range: [0, 1],
        texts: text((i) => data.classes[present[i]], z),
        pick: (_, row) => report.set({ cls: present[row] }),
      });
    });
  };

  // Of the joints at a layer, in parts of the largest; of all clips where the class is -1.
  const importance = (layer, number) => {
    const packed = number < 0 ? data.explain.importance : data.explain.classImportance;
    const { shape, values } = report.unpack(packed);
    const joints = shape[shape.length - 1];
    const start = (number < 0 ? layer : layer * shape[1] + number) * joints;
    const row = Array.from(values.subarray(start, start + joints));
    const largest = Math.max(...row);
    return number < 0 && largest > 0 ? row.map((value) => value / largest) : row;
  };
  report.importance = importance;
  report.hasClass = hasClass;

  const KINDS = { rw: "random walk", quad: "quadratic", sym: "symmetric", rmse: "vote of neighbours" };

  report.smoothnessSection = () => {
    if (!data.geometry) return;
    const { smoothness, layers } = data.geometry;
    const section = report.section("smoothness", "Label smoothness against depth",
      "The error of the labels on the graph of each layer: how much of a clip's weight leads to clips of other " +
      "classes. It falls where a layer tells classes apart.");
    const kinds = Object.keys(smoothness);
    const chart = host(section);
    report.lazily(chart, [], () => {
      report.lines(chart, kinds.map((kind) => ({ name: KINDS[kind] || kind, values: smoothness[kind].values })),
        { names: layers, title: "layer", yTitle: "error" });
    });
    const trend = kinds.map((kind) => `${KINDS[kind] || kind} ${report.number(smoothness[kind].spearman)}`);
    section.append(make("p", {}, `Spearman correlation with depth: ${trend.join(", ")}.`));
    section.append(make("h3", {}, "By class"));
    const kind = choice(section, kinds.map((name) => [name, KINDS[name] || name]), "rw", () => draw());
    const classes = host(section);
    const draw = () => {
      const rows = smoothness[kind()].per_class;
      const z = data.classes.map((_, i) => rows.map((row) => row[i]));
      report.heatmap(classes, {
        z, x: { names: layers }, y: { names: data.classes }, label: "error",
        texts: z.map((row, i) => row.map((value, layer) =>
          `${report.plain(data.classes[i])}<br>${report.plain(layers[layer])}: ${report.number(value, 4)}`)),
        pick: (layer, cls) => report.set({ cls, layer: layerOf(layers[layer]) }),
      });
    };
    report.lazily(classes, [], draw);
  };

  const layerOf = (name) => Math.max(data.layers.indexOf(name), 0);

  report.graphSection = () => {
    if (!data.geometry || !data.geometry.graphs.some((graph) => graph.embedding)) return;
    const section = report.section("graph", "DS-Graphs",
      "Each point is a clip; near points are alike in what the layer makes of them. Point at one to see it in the " +
      "player. Crosses are predicted wrong. The plane is multidimensional scaling of the distances.");
    const { nodes, layers, graphs } = data.geometry;
    const select = make("select", { "aria-label": "Layer of the graph" },
      ...layers.map((name, i) => make("option", { value: i, disabled: !graphs[i].embedding }, name)));
    const edges = choice(section, [["off", "points"], ["on", "points and edges"]], "off", () => draw());
    section.lastChild.append(make("label", {}, "Layer ", select));
    const chart = host(section);
    // A layer of the graphs may have no maps, and the other way round; where both know it, they go together.
    const follow = () => {
      const number = layers.indexOf(data.layers[report.state.layer]);
      if (number >= 0 && graphs[number].embedding) select.value = number;
    };
    select.value = graphs.map((graph) => Boolean(graph.embedding)).lastIndexOf(true);
    follow();
    report.listeners.push((changed) => changed.has("layer") && follow());
    select.addEventListener("change", () => {
      const layer = data.layers.indexOf(layers[select.value]);
      if (layer >= 0 && layer !== report.state.layer) report.set({ layer });
      else draw();
    });
    const draw = () => {
      const graph = graphs[select.value];
      const { values } = report.unpack(graph.embedding);
      const traces = [];
      if (edges() === "on") traces.push(edgeTrace(report.unpack(graph.edges).values, values));
      const groups = new Map();
      nodes.forEach((row, node) => {
        const label = data.rows.labels[row];
        if (!groups.has(label)) groups.set(label, []);
        groups.get(label).push(node);
      });
      for (const label of [...groups.keys()].sort((a, b) => a - b)) {
        traces.push(classTrace(label, groups.get(label), values));
      }
      report.plot(chart, traces, {
        height: report.isNarrow(chart) ? 680 : 580,
        hovermode: "closest",
        xaxis: { visible: false },
        yaxis: { visible: false, scaleanchor: "x" },
        margin: { l: 10, r: 10, t: report.isNarrow(chart) ? 10 : 36, b: 10 },
        legend: { font: { size: 11 }, ...(report.isNarrow(chart) ? { orientation: "h", y: 0, yanchor: "top" } : {}) },
      });
      const show = (point) => {
        const place = point.customdata === undefined ? undefined : report.clipOfRow.get(point.customdata);
        if (place !== undefined) report.showClip(place, true);
      };
      report.listen(chart, "plotly_hover", show);
      report.listen(chart, "plotly_click", show);
    };
    const classTrace = (label, members, values) => {
      const rows = members.map((node) => nodes[node]);
      const { cls } = report.state;
      return {
        type: "scatter",
        mode: "markers",
        name: report.plain(report.className(label)),
        x: members.map((node) => values[2 * node]),
        y: members.map((node) => values[2 * node + 1]),
        customdata: rows,
        opacity: cls >= 0 && cls !== label ? 0.12 : 0.9,
        marker: {
          size: 8,
          color: report.classColour(label),
          symbol: rows.map((row) => (wrong(row) ? "x" : "circle")),
          line: { width: 0 },
        },
        hoverinfo: "text",
        hovertext: rows.map((row) => {
          const there = report.clipOfRow.has(row) ? "" : "<br>(not in the player)";
          return `${report.plain(data.rows.names[row])}<br>${report.plain(report.className(label))}` +
            `<br>predicted: ${report.plain(report.className(data.rows.predictions[row]))}${there}`;
        }),
      };
    };
    report.lazily(chart, ["layer", "cls"], draw);
  };

  const wrong = (row) => data.rows.labels[row] >= 0 && data.rows.labels[row] !== data.rows.predictions[row];
  report.wrong = wrong;

  const edgeTrace = (edges, values) => {
    const [x, y] = [[], []];
    for (let i = 0; i < edges.length; i += 2) {
      for (const node of [edges[i], edges[i + 1]]) {
        x.push(values[2 * node]);
        y.push(values[2 * node + 1]);
      }
      x.push(null);
      y.push(null);
    }
    return {
      type: "scatter", mode: "lines", x, y, hoverinfo: "skip", showlegend: false,
      line: { color: "#c3ccd4", width: 0.6 },
    };
  };

  report.confusionSection = () => {
    if (!data.confusion) return;
    const section = report.section("confusion", "Confusion matrix",
      "Rows are true classes, columns predicted ones; shades are parts of a row." +
      (data.clips.length ? " Click a cell to see such a clip." : ""));
    const chart = host(section);
    report.lazily(chart, [], () => {
      const z = data.confusion.map((row) => {
        const sum = row.reduce((a, b) => a + b, 0);
        return row.map((value) => (sum ? value / sum : 0));
      });
      report.heatmap(chart, {
        z, x: { names: data.classes, title: "predicted" }, y: { names: data.classes, title: "true" },
        range: [0, 1], label: "part of the row", square: data.classes.length <= 60,
        height: Math.max(340, 22 * data.classes.length + 170),
        cells: data.classes.length > 30 ? undefined : data.confusion.map((row) => row.map((value) => value || "")),
        texts: data.confusion.map((row, i) => row.map((value, j) =>
          `${report.plain(data.classes[i])} taken for ${report.plain(data.classes[j])}: ` +
          `${value} (${report.percent(z[i][j])})`)),
        pick: (predicted, label) => {
          const place = data.clips.findIndex(({ row }) =>
            data.rows.labels[row] === label && data.rows.predictions[row] === predicted);
          if (place >= 0) report.showClip(place, true);
        },
      });
    });
  };

  const FILLS = {
    mean: "its mean place over all clips",
    still: "its mean place over the clip",
    centre: "the centre of the body",
    zero: "the origin",
  };
  const filled = (faithfulness) => {
    const place = faithfulness && FILLS[faithfulness.fill];
    return place ? ` An occluded joint rests at ${place}.` : "";
  };

  report.trustSection = () => {
    const figures = data.explain ? data.explain.figures : {};
    const { faithfulness, curves, contrastivity } = figures;
    const contrast = contrastivity && Object.keys(contrastivity).length;
    if (!faithfulness && !contrast) return;
    const section = report.section("trust", "How far to trust the maps",
      "What it costs to occlude the joints that a layer's map names, against random ones; how the probability of " +
      `the class falls or rises joint by joint; and how much the maps of classes differ.${filled(faithfulness)}`);
    const pair = section.appendChild(make("div", { class: "pair" }));
    const part = (title, draw) => {
      const box = pair.appendChild(make("div", {}, make("h3", {}, title)));
      const chart = host(box);
      report.lazily(chart, [], () => draw(chart));
    };
    if (faithfulness) {
      const drop = (which) => data.layers.map((name) => faithfulness.layers[name][which].accuracy_drop);
      part(`${faithfulness.joints} joints occluded, ${faithfulness.clips} clips`, (chart) =>
        report.lines(chart, [
          { name: "most important", values: drop("most") },
          { name: "random", values: drop("random") },
          { name: "least important", values: drop("least") },
        ], { names: data.layers, title: "layer whose map chooses", yTitle: "loss of accuracy", bars: true }));
    }
    if (curves) {
      part("Joints taken away or put back, last layer", (chart) => {
        const series = Object.entries(curves).map(([name, curve]) => (
          { name: `${name} (area ${report.number(curve.area)})`, values: curve.probability }));
        const x = series[0].values.map((_, i) => i);
        report.lines(chart, series, { x, title: "joints", yTitle: "probability of the class" });
      });
    }
    if (contrast) {
      part("Contrastivity of classes", (chart) =>
        report.lines(chart, Object.entries(contrastivity).map(([name, values]) => (
          { name, values: data.layers.map((layer) => values[layer]) })),
        { names: data.layers, title: "layer", yTitle: "mean over pairs of classes" }));
    }
  };

  report.studySections = () => {
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    if (data.noise) {
      const { snr_db: levels, accuracy, smoothness, layers } = data.noise;
      const names = levels.map((level) => (level === null ? "clean" : `${level} dB`));
      const section = report.section("noise", "Noise on the input",
        "Accuracy and label smoothness error under Gaussian noise, by the ratio of signal to noise.");
      const chart = host(section);
      report.lazily(chart, [], () => report.lines(chart, [
        { name: "accuracy", values: accuracy.map(mean) },
        ...[0, layers.length - 1].map((layer) => (
          { name: `error, ${layers[layer]}`, values: smoothness.map((runs) => mean(runs.map((run) => run[layer]))) })),
      ], { names, title: "signal to noise", yTitle: "" }));
    }
    if (data.transfer) {
      const { frozen, accuracy, train_accuracy: training } = data.transfer;
      const section = report.section("transfer", "Transfer to new classes",
        "Accuracy on classes that the network was not trained on, by the number of blocks that stay as they were.");
      const chart = host(section);
      report.lazily(chart, [], () => report.lines(chart,
        [{ name: "test", values: accuracy }, { name: "training", values: training }],
        { names: frozen.map(String), title: "blocks frozen", yTitle: "accuracy" }));
    }
  };
})();
