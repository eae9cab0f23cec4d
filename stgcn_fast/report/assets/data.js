"use strict";
// The data of the page, and the state that its parts share.

const report = {};

report.data = JSON.parse(document.getElementById("data").textContent);

(() => {
  const kinds = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };
  const done = new WeakMap();

  // {shape, values}: numbers as they were, or rounded to the steps they were stored in.
  report.unpack = (packed) => {
    if (!done.has(packed)) {
      const text = atob(packed.data);
      const bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
      const steps = new kinds[packed.type](bytes.buffer);
      let values = steps;
      if (packed.low !== undefined) {
        const scale = (packed.high - packed.low) / (packed.type === "uint8" ? 255 : 65535);
        values = Float32Array.from(steps, (step) => packed.low + step * scale);
      }
      done.set(packed, { shape: packed.shape, values });
    }
    return done.get(packed);
  };
})();

// An element; text goes in as text, so that a name is never markup.
report.make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
};

report.find = (id) => document.getElementById(id);

// -1 stands for all classes and for all persons; clip is a place in data.clips, -1 for none.
report.state = { clip: -1, layer: 0, cls: -1, person: -1, frame: 0, playing: false };
report.listeners = [];

report.set = (changes) => {
  const changed = new Set();
  for (const [name, value] of Object.entries(changes)) {
    if (report.state[name] !== value) {
      report.state[name] = value;
      changed.add(name);
    }
  }
  if (changed.size) for (const listener of report.listeners) listener(changed);
};

report.className = (number) => {
  const name = number >= 0 ? report.data.classes[number] : undefined;
  return name === undefined ? (number < 0 ? "unknown" : `class ${number}`) : name;
};

// Place in data.clips by row, for what points at clips.
report.clipOfRow = new Map(report.data.clips.map((clip, place) => [clip.row, place]));

report.number = (value, digits = 3) =>
  value === null || value === undefined || Number.isNaN(value) ? "" : value.toFixed(digits);

report.percent = (value) => (value === null || value === undefined ? "" : `${(100 * value).toFixed(1)} %`);

// Values of one layer as {joints, frames, at(joint, frame)}: of the clip shown, its largest person or one.
report.clipMap = (place, layer, person = -1) => {
  const clip = report.data.clips[place];
  if (!clip || !clip.maps) return null;
  const { shape, values } = report.unpack(clip.maps[layer]);
  const [persons, frames, joints] = shape;
  const at = (joint, frame) => {
    if (person >= 0) return values[(person * frames + frame) * joints + joint];
    let largest = -Infinity;
    for (let m = 0; m < persons; m += 1) {
      largest = Math.max(largest, values[(m * frames + frame) * joints + joint]);
    }
    return largest;
  };
  return { joints, frames, step: clip.frames / report.data.explain.mapFrames[layer], at };
};

report.classMap = (number, layer) => {
  const { shape, values } = report.unpack(report.data.explain.classMaps[layer]);
  const [, frames, joints] = shape;
  const at = (joint, frame) => values[(number * frames + frame) * joints + joint];
  return { joints, frames, step: null, at };
};
