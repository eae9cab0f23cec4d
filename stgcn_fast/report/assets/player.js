"use strict";
// A clip on a canvas: bodies in two or three dimensions, turned with the mouse, joints as large and bright as
// the focus on them.

(() => {
  const SIDES = { left: "#4aa3df", right: "#f08a4b", middle: "#8f9ba6" };
  const YAW = (20 * Math.PI) / 180;
  const PITCH = (8 * Math.PI) / 180;
  const MARGIN = 0.9;

  // What points up, to the right and away from the camera, for each choice of the axis that is up.
  const AXES = {
    y: ([x, y, z]) => [x, y, z],
    "-y": ([x, y, z]) => [x, -y, z],
    z: ([x, y, z]) => [x, z, y],
    "-z": ([x, y, z]) => [x, -z, y],
    x: ([x, y, z]) => [y, x, z],
    "-x": ([x, y, z]) => [y, -x, z],
  };

  report.axes = () => (report.data.skeleton.coordinates === 3 ? Object.keys(AXES) : ["-y", "y", "x", "-x"]);

  report.Player = class {
    constructor(canvas) {
      this.canvas = canvas;
      this.pen = canvas.getContext("2d");
      this.skeleton = report.data.skeleton;
      this.deep = this.skeleton.coordinates === 3;
      this.up = this.skeleton.up;
      this.names = false;
      this.clip = null;
      this.reset();
      const sides = this.skeleton.joints.map(() => SIDES.middle);
      for (const joint of this.skeleton.left) sides[joint] = SIDES.left;
      for (const joint of this.skeleton.right) sides[joint] = SIDES.right;
      this.sides = sides;
      canvas.classList.toggle("flat", !this.deep);
      this.listen();
      new ResizeObserver(() => this.draw()).observe(canvas);
    }

    reset() {
      this.yaw = this.deep ? YAW : 0;
      this.pitch = this.deep ? PITCH : 0;
      this.zoom = 1;
    }

    listen() {
      let from = null;
      this.canvas.addEventListener("pointerdown", (event) => {
        from = [event.clientX, event.clientY];
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        if (from === null || !this.deep) return;
        this.yaw += (event.clientX - from[0]) * 0.01;
        this.pitch += (event.clientY - from[1]) * 0.01;
        this.pitch = Math.min(Math.max(this.pitch, -Math.PI / 2), Math.PI / 2);
        from = [event.clientX, event.clientY];
        this.draw();
      });
      for (const name of ["pointerup", "pointercancel"]) {
        this.canvas.addEventListener(name, () => {
          from = null;
        });
      }
      this.canvas.addEventListener(
        "wheel",
        (event) => {
          // A page that scrolls past must not zoom by the way.
          if (!event.ctrlKey && !event.shiftKey) return;
          event.preventDefault();
          // With shift, browsers report a wheel as one to the side.
          const by = event.deltaY || event.deltaX;
          this.zoom = Math.min(Math.max(this.zoom * Math.exp(-by * 0.002), 0.4), 6);
          this.draw();
        },
        { passive: false },
      );
    }

    // Takes a place in data.clips, -1 for none.
    show(place) {
      const clip = report.data.clips[place];
      this.place = place;
      this.clip = null;
      if (!clip) return;
      const { shape, values } = report.unpack(clip.keypoints);
      const [persons, frames, joints, coordinates] = shape;
      const seen = clip.seen ? report.unpack(clip.seen).values : null;
      this.clip = { persons, frames, joints, coordinates, values, seen };
      this.fit();
    }

    get frames() {
      return this.clip ? this.clip.frames : 0;
    }

    visible(person, frame, joint) {
      const { frames, joints, seen } = this.clip;
      return seen === null || seen[(person * frames + frame) * joints + joint] > 0.5;
    }

    // [right, height, depth] of a joint.
    point(person, frame, joint) {
      const { frames, joints, coordinates, values } = this.clip;
      const start = ((person * frames + frame) * joints + joint) * coordinates;
      const z = coordinates === 3 ? values[start + 2] : 0;
      return AXES[this.up]([values[start], values[start + 1], z]);
    }

    // Centre and reach of all that the clip shows, so that no frame and no turn leaves the stage.
    fit() {
      const low = [Infinity, Infinity, Infinity];
      const high = [-Infinity, -Infinity, -Infinity];
      this.each((point) => {
        point.forEach((value, axis) => {
          low[axis] = Math.min(low[axis], value);
          high[axis] = Math.max(high[axis], value);
        });
      });
      if (low[0] > high[0]) {
        low.fill(0);
        high.fill(0);
      }
      this.centre = low.map((value, axis) => (value + high[axis]) / 2);
      this.floor = low[1] - this.centre[1];
      this.wide = Math.max(Math.hypot((high[0] - low[0]) / 2, (high[2] - low[2]) / 2), 1e-6);
      this.tall = Math.max((high[1] - low[1]) / 2, 1e-6);
    }

    each(visit) {
      for (let m = 0; m < this.clip.persons; m += 1) {
        for (let t = 0; t < this.clip.frames; t += 1) {
          for (let v = 0; v < this.clip.joints; v += 1) {
            if (this.visible(m, t, v)) visit(this.point(m, t, v));
          }
        }
      }
    }

    // Pixels of a place relative to the centre, and how far away it is.
    project([right, height, depth]) {
      // Seen from the camera, which looks along the depth: what faces it has its right on the left.
      const across = this.deep ? depth * Math.sin(this.yaw) - right * Math.cos(this.yaw) : right;
      const away = depth * Math.cos(this.yaw) + right * Math.sin(this.yaw);
      const rise = height * Math.cos(this.pitch) + away * Math.sin(this.pitch);
      return {
        x: this.middle[0] + across * this.scale,
        y: this.middle[1] - rise * this.scale,
        away: away * Math.cos(this.pitch) - height * Math.sin(this.pitch),
      };
    }

    draw() {
      const { canvas, pen } = this;
      const dense = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
        canvas.width = Math.round(width * dense);
        canvas.height = Math.round(height * dense);
      }
      pen.setTransform(dense, 0, 0, dense, 0, 0);
      pen.clearRect(0, 0, width, height);
      if (!this.clip || !width) return;
      this.middle = [width / 2, height / 2];
      const reach = this.deep ? this.tall + 0.2 * this.wide : this.tall;
      this.scale = MARGIN * this.zoom * Math.min(width / (2 * this.wide), height / (2 * reach));
      if (this.deep) this.drawFloor();
      const frame = Math.min(report.state.frame, this.clip.frames - 1);
      const focus = this.focus(frame);
      for (let person = 0; person < this.clip.persons; person += 1) {
        const { state } = report;
        pen.globalAlpha = state.person >= 0 && state.person !== person ? 0.25 : 1;
        this.drawBody(person, frame, focus);
      }
      pen.globalAlpha = 1;
    }

    drawFloor() {
      const { pen } = this;
      const lines = 6;
      const half = this.wide * 1.15;
      pen.strokeStyle = "#2b343d";
      pen.lineWidth = 1;
      for (let i = 0; i <= lines; i += 1) {
        const place = -half + (2 * half * i) / lines;
        for (const ends of [[[place, -half], [place, half]], [[-half, place], [half, place]]]) {
          const [from, to] = ends.map(([right, depth]) => this.project([right, this.floor, depth]));
          pen.beginPath();
          pen.moveTo(from.x, from.y);
          pen.lineTo(to.x, to.y);
          pen.stroke();
        }
      }
    }

    // Focus of a joint in 0..1 of the largest value of the clip at this layer; null without maps.
    focus(frame) {
      const { layer } = report.state;
      const clip = report.data.clips[this.place];
      if (!clip.maps) return null;
      const packed = clip.maps[layer];
      const { shape, values } = report.unpack(packed);
      const [, length, joints] = shape;
      const step = clip.frames / report.data.explain.mapFrames[layer];
      const at = Math.min(Math.floor(frame / step), length - 1);
      const span = packed.high - packed.low;
      return (person, joint) =>
        span > 0 ? (values[(person * length + at) * joints + joint] - packed.low) / span : 0;
    }

    drawBody(person, frame, focus) {
      const { pen, skeleton, clip } = this;
      const places = [];
      for (let v = 0; v < clip.joints; v += 1) {
        const point = this.point(person, frame, v).map((value, axis) => value - this.centre[axis]);
        places.push(this.visible(person, frame, v) ? this.project(point) : null);
      }
      const unit = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 340;
      pen.lineCap = "round";
      pen.lineWidth = 3 * unit;
      for (const [child, parent] of skeleton.edges) {
        const [from, to] = [places[child], places[parent]];
        if (!from || !to) continue;
        pen.strokeStyle = this.sides[child];
        pen.beginPath();
        pen.moveTo(from.x, from.y);
        pen.lineTo(to.x, to.y);
        pen.stroke();
      }
      const order = places.map((_, joint) => joint).filter((joint) => places[joint]);
      order.sort((a, b) => places[b].away - places[a].away);
      for (const joint of order) {
        const { x, y } = places[joint];
        const strength = focus ? focus(person, joint) : 0;
        pen.fillStyle = focus ? report.shadeText(strength) : this.sides[joint];
        pen.beginPath();
        pen.arc(x, y, (focus ? 3 + 8 * strength : 3.5) * unit, 0, 2 * Math.PI);
        pen.fill();
        pen.strokeStyle = "#dfe5ea";
        pen.lineWidth = 0.7 * unit;
        pen.stroke();
      }
      if (!this.names) return;
      pen.fillStyle = "#dfe5ea";
      pen.font = "10px sans-serif";
      for (const joint of order) pen.fillText(skeleton.joints[joint], places[joint].x + 7, places[joint].y - 4);
    }

    // The joints with most focus in a frame, as [joint, part].
    strongest(frame, count) {
      const focus = this.clip ? this.focus(frame) : null;
      if (!focus) return [];
      const all = [];
      for (let person = 0; person < this.clip.persons; person += 1) {
        if (report.state.person >= 0 && report.state.person !== person) continue;
        for (let joint = 0; joint < this.clip.joints; joint += 1) all.push([joint, focus(person, joint)]);
      }
      return all.sort((a, b) => b[1] - a[1]).slice(0, count);
    }

    // Mean focus of each frame as shades.
    drawStrip(canvas) {
      const pen = canvas.getContext("2d");
      const frames = Math.max(this.frames, 1);
      canvas.width = frames;
      canvas.height = 1;
      const means = [];
      for (let frame = 0; frame < this.frames; frame += 1) {
        const focus = this.focus(frame);
        if (!focus) break;
        let sum = 0;
        for (let m = 0; m < this.clip.persons; m += 1) {
          for (let v = 0; v < this.clip.joints; v += 1) sum += focus(m, v);
        }
        means.push(sum);
      }
      canvas.hidden = means.length === 0;
      const largest = Math.max(...means, 1e-30);
      means.forEach((value, frame) => {
        pen.fillStyle = report.shadeText(value / largest);
        pen.fillRect(frame, 0, 1, 1);
      });
    }
  };
})();
