"use strict";
// Shades of focus, and a colour for each class.

report.shades = [
  [27, 12, 65], [74, 12, 107], [120, 28, 109], [165, 44, 96], [207, 68, 70], [237, 105, 37],
  [251, 155, 6], [247, 209, 61], [252, 255, 164],
];

// Part 0..1 to [red, green, blue].
report.shade = (part) => {
  const place = Math.min(Math.max(part, 0), 1) * (report.shades.length - 1);
  const low = Math.min(Math.floor(place), report.shades.length - 2);
  const rest = place - low;
  return report.shades[low].map((value, i) => Math.round(value + (report.shades[low + 1][i] - value) * rest));
};

report.shadeText = (part) => `rgb(${report.shade(part).join(",")})`;

// For plotly: the same shades.
report.scale = report.shades.map((rgb, i) => [i / (report.shades.length - 1), `rgb(${rgb.join(",")})`]);

report.gradient = () =>
  `linear-gradient(to right, ${report.shades.map((rgb) => `rgb(${rgb.join(",")})`).join(",")})`;

// Told apart by colour-blind readers as well, as far as they reach.
report.palette = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444"];

report.classColour = (number) => {
  if (number < 0) return "#999999";
  const count = report.data.classes.length;
  if (count <= report.palette.length) return report.palette[number];
  const lightness = [38, 52, 64][number % 3];
  return report.hue((360 * number) / count, 0.68, lightness / 100);
};

report.hue = (hue, saturation, lightness) => {
  const reach = saturation * Math.min(lightness, 1 - lightness);
  const channel = (shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (lightness - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return `rgb(${channel(0)},${channel(8)},${channel(4)})`;
};
