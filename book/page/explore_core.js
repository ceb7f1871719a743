/* The arithmetic of the explorer in the page: the classifier, its maps, and what they rank highest, as in xfrlib.

   One function without ties to the page, so that its source can start a worker from a Blob (a page opened from a folder
   may not load worker files) and node can run it in the tests. Arrays of pictures and maps are flat, row by row; feature
   maps are (C, h, w). tests/test_page_explorer.py holds it to xfrlib. */
"use strict";

function explorerCore() {
  const BLOCK = 4; // output channels and pixels that the innermost loop holds in registers
  const TILE = 128; // pixels whose patches are laid out at once; 128 x 288 floats stay in the second cache

  // --- reading what explore.py wrote

  function decodeBase64(text) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  /** The network of a description and its binary file (Uint8Array), ready for `features`. */
  function readNetwork(description, bytes) {
    if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) throw new Error("this machine is not little-endian");
    const floats = (ref) => new Float32Array(bytes.buffer, bytes.byteOffset + ref.at, ref.size);
    const convolution = (layer) => {
      const [rows, columns] = layer.weight.shape;
      const whole = new Int16Array(bytes.buffer, bytes.byteOffset + layer.weight.at, rows * columns);
      const scale = floats(layer.weight.scale);
      // Four output channels lie side by side, as the innermost loop reads them; missing ones are zero.
      const groups = Math.ceil(rows / BLOCK);
      const packed = new Float32Array(groups * BLOCK * columns);
      for (let r = 0; r < rows; r++) {
        const base = (r - (r % BLOCK)) * columns + (r % BLOCK);
        for (let c = 0; c < columns; c++) packed[base + c * BLOCK] = whole[r * columns + c] * scale[r];
      }
      return { ...layer, out: rows, columns, packed, bias: floats(layer.bias) };
    };
    const block = (b) => ({
      scale: floats(b.scale),
      shift: floats(b.shift),
      first: convolution(b.first),
      prelu: floats(b.prelu),
      second: convolution(b.second),
      shortcut: b.shortcut && convolution(b.shortcut),
    });
    const weight = floats(description.head.weight);
    const bias = floats(description.head.bias);
    return {
      mean: description.mean,
      std: description.std,
      bgr: description.bgr,
      geometry: description.geometry,
      stem: convolution(description.stem),
      prelu: floats(description.prelu),
      blocks: description.blocks.map(block),
      head: { weight, bias, classes: bias.length, channels: weight.length / bias.length },
    };
  }

  // --- the forward pass

  /** Lay out the patches of output pixels [from, to) as (columns, TILE); beyond the picture is 0. */
  function patches(map, layer, width, from, to, out) {
    const { kernel, stride, padding } = layer;
    const { data, h, w, channels } = map;
    let row = 0;
    for (let c = 0; c < channels; c++) {
      for (let ky = 0; ky < kernel; ky++) {
        for (let kx = 0; kx < kernel; kx++, row += TILE) {
          let y = Math.floor(from / width), x = from - y * width;
          let position = row;
          while (position < row + to - from) {
            const run = Math.min(width - x, row + to - from - position);
            const sy = y * stride + ky - padding;
            if (sy < 0 || sy >= h) out.fill(0, position, position + run);
            else {
              const line = (c * h + sy) * w;
              let sx = x * stride + kx - padding;
              for (let i = 0; i < run; i++, sx += stride) out[position + i] = sx < 0 || sx >= w ? 0 : data[line + sx];
            }
            position += run;
            x = 0;
            y++;
          }
        }
      }
    }
  }

  /** A convolution as a product of matrices, tile by tile. PReLU follows where `slope` (out) is given. */
  function convolve(map, layer, slope) {
    const { kernel, stride, padding, out: channels, columns, packed, bias } = layer;
    const h = Math.floor((map.h + 2 * padding - kernel) / stride) + 1;
    const w = Math.floor((map.w + 2 * padding - kernel) / stride) + 1;
    const pixels = h * w;
    const result = new Float32Array(channels * pixels);
    const columnsOf = new Float32Array(columns * TILE);
    for (let from = 0; from < pixels; from += TILE) {
      const to = Math.min(from + TILE, pixels);
      patches(map, layer, w, from, to, columnsOf);
      for (let o = 0; o < channels; o += BLOCK) {
        const base = o * columns;
        for (let p = 0; p < to - from; p += BLOCK) {
          let a00 = 0, a01 = 0, a02 = 0, a03 = 0, a10 = 0, a11 = 0, a12 = 0, a13 = 0;
          let a20 = 0, a21 = 0, a22 = 0, a23 = 0, a30 = 0, a31 = 0, a32 = 0, a33 = 0;
          for (let k = 0, i = base, j = p; k < columns; k++, i += BLOCK, j += TILE) {
            const w0 = packed[i], w1 = packed[i + 1], w2 = packed[i + 2], w3 = packed[i + 3];
            const x0 = columnsOf[j], x1 = columnsOf[j + 1], x2 = columnsOf[j + 2], x3 = columnsOf[j + 3];
            a00 += w0 * x0; a01 += w0 * x1; a02 += w0 * x2; a03 += w0 * x3;
            a10 += w1 * x0; a11 += w1 * x1; a12 += w1 * x2; a13 += w1 * x3;
            a20 += w2 * x0; a21 += w2 * x1; a22 += w2 * x2; a23 += w2 * x3;
            a30 += w3 * x0; a31 += w3 * x1; a32 += w3 * x2; a33 += w3 * x3;
          }
          store(result, o, from + p, to, pixels, channels, bias, slope, a00, a01, a02, a03, 0);
          store(result, o, from + p, to, pixels, channels, bias, slope, a10, a11, a12, a13, 1);
          store(result, o, from + p, to, pixels, channels, bias, slope, a20, a21, a22, a23, 2);
          store(result, o, from + p, to, pixels, channels, bias, slope, a30, a31, a32, a33, 3);
        }
      }
    }
    return { data: result, channels, h, w };
  }

  function store(result, group, pixel, end, pixels, channels, bias, slope, v0, v1, v2, v3, member) {
    const o = group + member;
    if (o >= channels) return;
    const at = o * pixels + pixel, b = bias[o], a = slope ? slope[o] : 1;
    v0 += b; v1 += b; v2 += b; v3 += b;
    result[at] = v0 < 0 ? a * v0 : v0;
    if (pixel + 1 < end) result[at + 1] = v1 < 0 ? a * v1 : v1;
    if (pixel + 2 < end) result[at + 2] = v2 < 0 ? a * v2 : v2;
    if (pixel + 3 < end) result[at + 3] = v3 < 0 ? a * v3 : v3;
  }

  /** Every channel times its scale plus its shift: a BatchNorm that stands before a padded convolution. */
  function affine(map, scale, shift) {
    const size = map.h * map.w;
    const data = new Float32Array(map.data.length);
    for (let c = 0; c < map.channels; c++) {
      const a = scale[c], b = shift[c];
      for (let i = c * size; i < (c + 1) * size; i++) data[i] = a * map.data[i] + b;
    }
    return { ...map, data };
  }

  function addShortcut(result, map, block) {
    const { data, h, w } = result;
    if (block.shortcut) {
      const other = convolve(map, block.shortcut, null).data;
      for (let i = 0; i < data.length; i++) data[i] += other[i];
      return;
    }
    const stride = block.second.stride;
    for (let c = 0, i = 0; c < map.channels; c++)
      for (let y = 0; y < h; y++)
        for (let x = 0, j = (c * map.h + y * stride) * map.w; x < w; x++, i++, j += stride) data[i] += map.data[j];
  }

  /** Picture (Uint8Array, size * size * 3, RGB) -> {features: {data, channels, h, w}, logits: Float32Array}. */
  function forward(network, pixels, size) {
    const steps = forwardSteps(network, pixels, size);
    let step = steps.next();
    while (!step.done) step = steps.next();
    return step.value;
  }

  /** `forward`, block by block, for who has to listen between them. */
  function* forwardSteps(network, pixels, size) {
    const area = size * size;
    const picture = new Float32Array(3 * area);
    for (let c = 0; c < 3; c++) {
      const from = network.bgr ? 2 - c : c;
      for (let i = 0; i < area; i++) picture[c * area + i] = (pixels[3 * i + from] / 255 - network.mean) / network.std;
    }
    let map = convolve({ data: picture, channels: 3, h: size, w: size }, network.stem, network.prelu);
    for (const block of network.blocks) {
      const inner = convolve(affine(map, block.scale, block.shift), block.first, block.prelu);
      const result = convolve(inner, block.second, null);
      addShortcut(result, map, block);
      map = result;
      yield;
    }
    return { features: map, logits: classify(network.head, map) };
  }

  /** Average pooling: without the linear layer after it, the embedding. */
  function pool(map) {
    const positions = map.h * map.w;
    const pooled = new Float64Array(map.channels);
    for (let c = 0; c < map.channels; c++) {
      for (let i = 0; i < positions; i++) pooled[c] += map.data[c * positions + i];
      pooled[c] /= positions;
    }
    return pooled;
  }

  /** Average pooling and the linear layer. */
  function classify(head, map) {
    const pooled = pool(map);
    return Float32Array.from(head.bias, (bias, n) => {
      let sum = bias;
      for (let c = 0; c < map.channels; c++) sum += head.weight[n * map.channels + c] * pooled[c];
      return sum;
    });
  }

  function softmax(logits) {
    const high = Math.max(...logits);
    const odds = Float64Array.from(logits, (z) => Math.exp(z - high));
    const total = odds.reduce((a, b) => a + b, 0);
    return odds.map((v) => v / total);
  }

  // --- maps

  /** Signed CAMs of `classes`, in units of the logit: a Float32Array (h * w) each. `centre` takes the mean over classes
      off the weights first. */
  function cams(head, map, classes, centre) {
    const { channels, data } = map;
    const positions = map.h * map.w;
    const mean = new Float64Array(channels);
    for (let n = 0; centre && n < head.classes; n++)
      for (let c = 0; c < channels; c++) mean[c] += head.weight[n * channels + c] / head.classes;
    return classes.map((n) => {
      const sums = new Float64Array(positions);
      for (let c = 0; c < channels; c++) {
        const weight = head.weight[n * channels + c] - mean[c];
        for (let i = 0; i < positions; i++) sums[i] += weight * data[c * positions + i];
      }
      return Float32Array.from(sums);
    });
  }

  /** A map (h * w) laid over a picture (size * size): bilinear, border values held. Pixel p shows it at cell
      (p - offset) / stride of its geometry {stride, offset}, rows first, as xfrlib.geometry.upsampled. */
  function upsample(map, h, w, size, { stride, offset }) {
    const along = (n, axis) => {
      const low = new Int32Array(size), high = new Int32Array(size), part = new Float32Array(size);
      for (let i = 0; i < size; i++) {
        // Held on both sides, so that pixels beyond the border are equal to the last digit and ranked in reading order.
        const at = Math.min(Math.max(0, (i - offset[axis]) / stride[axis]), n - 1);
        low[i] = Math.floor(at);
        high[i] = Math.min(low[i] + 1, n - 1);
        part[i] = at - low[i];
      }
      return { low, high, part };
    };
    const ys = along(h, 0), xs = along(w, 1);
    const result = new Float32Array(size * size);
    for (let y = 0, i = 0; y < size; y++) {
      const top = ys.low[y] * w, bottom = ys.high[y] * w, v = ys.part[y];
      for (let x = 0; x < size; x++, i++) {
        const l = xs.low[x], r = xs.high[x], u = xs.part[x];
        result[i] = (1 - v) * ((1 - u) * map[top + l] + u * map[top + r]) +
          v * ((1 - u) * map[bottom + l] + u * map[bottom + r]);
      }
    }
    return result;
  }

  const meanSize = (map) => map.reduce((sum, value) => sum + Math.abs(value), 0) / map.length;

  /** The factor s of the target's map, the first of `maps`, before and after it is held between its bounds. */
  function sddScale(maps, { scale, scaleMin, scaleMax }) {
    const own = meanSize(maps[0]);
    if (own === 0) throw new Error("the target's map is zero everywhere, so no scale can be computed");
    const free = (scale * maps.slice(1).reduce((sum, map) => sum + meanSize(map), 0)) / (maps.length - 1) / own;
    return { free, used: Math.min(Math.max(free, scaleMin), scaleMax) };
  }

  /** Logarithm of the scaled directed divergence of the first map against the others, its largest value 0.
      `large` are the maps at the size wanted, `s` is from the small ones; form "sum", "product" or "local_softmax". */
  function logSdd(large, s, { delta, form }) {
    const [own, ...rivals] = large;
    const result = new Float32Array(own.length);
    const logSumExp = (i, sign) => {
      let high = -Infinity, sum = 0;
      for (const map of rivals) high = Math.max(high, sign * delta * map[i]);
      for (const map of rivals) sum += Math.exp(sign * delta * map[i] - high);
      return high + Math.log(sum);
    };
    let high = -Infinity;
    for (let i = 0; i < own.length; i++) {
      const ours = delta * s * own[i];
      let value;
      if (form === "sum") value = ours + logSumExp(i, -1);
      else if (form === "product") value = rivals.reduce((sum, map) => sum + ours - delta * map[i], 0);
      else if (form === "local_softmax") value = -softplus(logSumExp(i, 1) - ours);
      else throw new Error(`form ${form}: use sum, product or local_softmax`);
      result[i] = value;
      high = Math.max(high, result[i]);
    }
    return result.map((value) => value - high);
  }

  const softplus = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

  /** The power with which a map of SDD runs from e^-4 to 1, from its logarithm, as xfrlib.plots.gentle_power. */
  const gentlePower = (log) => 4 / Math.max(1e-6, -log.reduce((least, value) => Math.min(least, value), 0));

  // --- two pictures

  /** What explain_match (xfrlib.match) says of the feature map of a probe and `templates` (n * channels) of length 1: that
      of the second picture, `own`, against the `topK` - 1 most similar others, under the default divergence. The head is
      an average; it has no offset, so the constant is 0. `cams` are small; `map`, `difference` and `log` are laid over
      the picture. */
  function match(features, templates, { own, topK }, size, geometry) {
    const { channels, h, w } = features, embedding = pool(features), length = Math.hypot(...embedding);
    const similarities = Float64Array.from({ length: templates.length / channels }, (_, n) =>
      embedding.reduce((sum, value, c) => sum + value * templates[n * channels + c], 0) / length);
    const others = [...similarities.keys()].filter((n) => n !== own).sort((a, b) => similarities[b] - similarities[a]);
    const classes = [own, ...others.slice(0, topK - 1)];
    const small = cams({ weight: templates, channels }, features, classes, false).map((one) => one.map((value) => value / length));
    const shared = small[0].map((_, i) => small.reduce((sum, one) => sum + one[i], 0) / small.length);
    const compared = small.map((one) => one.map((value, i) => value - shared[i]));
    const divergence = { delta: 1, scale: 1, scaleMin: 1, scaleMax: 50, form: "sum" };
    const lay = (one) => upsample(one, h, w, size, geometry);
    const log = logSdd(compared.map(lay), sddScale(compared, divergence).used, divergence);
    const [map, other] = small.slice(0, 2).map(lay);
    return { similarities, classes, constant: 0, cams: small, map, difference: map.map((value, i) => value - other[i]), log };
  }

  // --- what a map ranks highest

  /** The nearest whole number, of a half the even one, as Python rounds. */
  function roundEven(value) {
    const low = Math.floor(value);
    if (value - low !== 0.5) return Math.round(value);
    return low % 2 ? low + 1 : low;
  }

  const pixelCount = (fraction, pixels) => roundEven(fraction * pixels);

  /** Exactly round(fraction * pixels) pixels of highest value, as a Uint8Array of 0 and 1; equal values are taken in
      reading order. */
  function topMask(map, fraction) {
    const count = pixelCount(fraction, map.length);
    const mask = new Uint8Array(map.length);
    if (count === 0) return mask;
    const least = Float32Array.from(map).sort()[map.length - count];
    let left = count;
    for (let i = 0; i < map.length; i++) if (map[i] > least) { mask[i] = 1; left--; }
    for (let i = 0; left > 0; i++) if (map[i] === least && !mask[i]) { mask[i] = 1; left--; }
    return mask;
  }

  /** The `count` pixels nearest to the middle of a picture (size * size), equal distances in reading order. */
  function disc(count, size) {
    const square = (i) => (2 * i - size + 1) ** 2; // whole numbers, so that equal distances are equal
    const distance = Int32Array.from({ length: size * size }, (_, i) => square(i % size) + square(Math.floor(i / size)));
    const mask = new Uint8Array(size * size);
    for (const i of Array.from(distance.keys()).sort((a, b) => distance[a] - distance[b]).slice(0, count)) mask[i] = 1;
    return mask;
  }

  /** The picture with the pixels of `mask` (where it equals `value`) painted black. */
  function blacken(pixels, mask, value) {
    const result = pixels.slice();
    for (let i = 0; i < mask.length; i++) if (mask[i] === value) result.fill(0, 3 * i, 3 * i + 3);
    return result;
  }

  // --- whether a map beats the disc

  /** Logit of the first of `classes`, the target, over the mean of the others, its rivals. */
  const lead = (logits, [target, ...rivals]) =>
    logits[target] - rivals.reduce((sum, n) => sum + logits[n], 0) / rivals.length;

  /** What should_show (xfrlib.trust) says of a region under the fill black, with `classes` as its pairs: {show, reason,
      deletion, retention}. The answers to the region and to the other one, the disc, are logits {deletion, retention};
      the gains are in log-odds over the temperature, and one that rounds to 0.0 is none. */
  function judge(classes, region, other, temperature) {
    const over = (kind) => (lead(region[kind], classes) - lead(other[kind], classes)) / temperature;
    const deletion = -over("deletion"), retention = over("retention"), least = 0.05;
    const [[takes, than], [leaves, thanKept]] = [deletion, retention].map((one) => Math.abs(one) < least ? ["as much", "as"]
      : [`${Math.abs(one).toFixed(1)} log-odds ${one > 0 ? "more" : "less"}`, "than"]);
    const compared = `under a black fill, deleting the region takes ${takes} of the lead over the rivals ${than} ` +
      `deleting a centred disc, and keeping only it leaves ${leaves} ${thanKept} keeping only the disc`;
    const won = Number(deletion >= least) + Number(retention >= least);
    const says = won === 2 ? "Shown" : `Not shown: the region beats the disc in ${won ? "only one" : "neither"} of two measures`;
    return { show: won === 2, reason: `${says}: ${compared}.`, deletion, retention };
  }

  // --- the map in words

  /** A probability in [0, 1] as text, as xfrlib.plots.percent writes it. */
  function percent(probability) {
    const value = 100 * probability;
    const text = () => {
      if (value === 0 || value === 100 || (value >= 1 && value <= 99)) return roundEven(value);
      if (value < 0.05) return "<\u00a00.1";
      if (value >= 99.95) return ">\u00a099.9";
      return (value % 1 === 0.25 ? value - 0.05 : value).toFixed(1); // the even tenth of the two, as Python
    };
    return `${text()}\u00a0%`;
  }

  const PAIRED = { ears: "ear", brows: "brow", eyes: "eye" };

  /** Names of the places of a face, one for each pixel: parts as they are painted, the skin by where it lies. Left and
      right are the viewer's. `parts` holds an index into `names` for each pixel. */
  function places(parts, names, size) {
    const rows = { eyes: [size * 0.4, size * 0.46], mouth: [size * 0.76, size * 0.84] };
    for (const part of Object.keys(rows)) {
      const found = [];
      parts.forEach((p, i) => names[p] === part && found.push(Math.floor(i / size)));
      if (found.length) rows[part] = [Math.min(...found), Math.max(...found)];
    }
    let left = size, right = 0;
    parts.forEach((p, i) => {
      if (names[p] !== "head") return;
      left = Math.min(left, i % size);
      right = Math.max(right, i % size);
    });
    const axis = left < right ? (left + right) / 2 : size / 2;
    return Array.from(parts, (p, i) => {
      const x = i % size, y = Math.floor(i / size), side = x < axis ? "left" : "right";
      const part = names[p];
      if (PAIRED[part]) return `${side} ${PAIRED[part]}`;
      if (part === "hair") return Math.abs(x - axis) < size * 0.2 ? "hair above the forehead" : `hair on the ${side}`;
      if (part === "background") return `background on the ${side}`;
      if (part !== "head") return part;
      if (y < rows.eyes[0]) return "forehead";
      if (y > rows.mouth[1]) return "chin";
      return Math.abs(x - axis) < size * 0.08 ? "middle of the face" : `${side} cheek`;
    });
  }

  /** The one or two places on which a mask lies most. A place counts by its pixels in the mask; a part of the face twice,
      or six times where the mask covers half of it, since the skin around it is always larger. */
  function strongest(mask, placeOf) {
    const area = new Map(), within = new Map();
    placeOf.forEach((place, i) => {
      area.set(place, (area.get(place) || 0) + 1);
      if (mask[i]) within.set(place, (within.get(place) || 0) + 1);
    });
    const plain = /cheek|forehead|chin|middle|background|clothes|hair/;
    const score = ([place, n]) => n * (plain.test(place) ? 1 : n >= area.get(place) / 2 ? 6 : 2);
    const ranked = [...within].sort((a, b) => score(b) - score(a));
    if (!ranked.length) return [];
    const limit = score(ranked[0]) / 5;
    return ranked.slice(0, 2).filter((entry) => score(entry) >= limit).map(([place]) => place);
  }

  /** "left eye", "left brow" -> "left eye and brow". */
  function inWords(names) {
    const [first, second] = names;
    if (!second) return first ? `the ${first}` : "no place";
    const side = first.split(" ")[0];
    return second.startsWith(`${side} `)
      ? `the ${first} and ${second.slice(side.length + 1)}`
      : `the ${first} and the ${second}`;
  }

  // --- one answer, and the worker

  /** What one request needs, computed once: features by picture, answers to masked pictures by mask. */
  function session(network, size, limit = 40) {
    const kept = new Map();
    let passes = 0;
    function keep(key, found) {
      kept.delete(key);
      kept.set(key, found); // the last used stand last
      if (kept.size > limit) kept.delete(kept.keys().next().value);
      return found;
    }
    function look(pixels) {
      const key = hash(pixels), known = kept.get(key);
      if (!known) passes++;
      return keep(key, known || forward(network, pixels, size));
    }
    /** As `look`, but null as soon as `goOn`, asked after every block, says no. */
    async function lookUnlessStopped(pixels, goOn) {
      const key = hash(pixels), known = kept.get(key);
      if (known) return keep(key, known);
      const steps = forwardSteps(network, pixels, size);
      let step = steps.next();
      for (; !step.done; step = steps.next()) if (!(await goOn())) return null;
      passes++;
      return keep(key, step.value);
    }
    /** Maps of a request {pixels, target, rivals, topK, delta, scale, scaleMin, scaleMax, form, centre, share}; target
        null is the predicted class, rivals null the topK - 1 most probable others. */
    function explain(request) {
      const { features, logits } = look(request.pixels);
      const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
      const target = request.target ?? order[0];
      const classes = [target, ...(request.rivals ?? order.filter((n) => n !== target).slice(0, request.topK - 1))];
      const small = cams(network.head, features, classes, request.centre);
      const s = sddScale(small, request);
      const large = small.map((map) => upsample(map, features.h, features.w, size, network.geometry));
      const log = logSdd(large, s.used, request);
      return { classes, logits, probabilities: softmax(logits), cams: small, large, s, log,
        mask: topMask(log, request.share) };
    }
    /** Logits after the pixels of a mask were painted black, and after all others were; null if `goOn` said no. */
    async function without(pixels, mask, goOn) {
      const deleted = await lookUnlessStopped(blacken(pixels, mask, 1), goOn);
      const retained = deleted && (await lookUnlessStopped(blacken(pixels, mask, 0), goOn));
      return retained && { deletion: deleted.logits, retention: retained.logits };
    }
    const probabilities = ({ deletion, retention }) => ({ deletion: softmax(deletion), retention: softmax(retention) });
    /** Probabilities without the pixels of a mask and with them alone; null if `goOn` said no. */
    async function masked(pixels, mask, goOn = async () => true) {
      const answers = await without(pixels, mask, goOn);
      return answers && probabilities(answers);
    }
    /** The same for the centred disc of as many pixels as the mask of `found`, what `explain` gave for these pixels, and
        the verdict of `judge`, which there is only where the target is the predicted class; null if `goOn` said no. */
    async function besideDisc(pixels, found, temperature, goOn = async () => true) {
      const centre = disc(found.mask.reduce((sum, value) => sum + value, 0), size);
      const region = await without(pixels, found.mask, goOn), other = region && (await without(pixels, centre, goOn));
      if (!other) return null;
      const predicted = found.logits.indexOf(Math.max(...found.logits));
      const verdict = predicted === found.classes[0] ? judge(found.classes, region, other, temperature) : null;
      return { disc: centre, ...probabilities(other), verdict };
    }
    const matched = (request) => match(look(request.pixels).features, request.templates, request, size, network.geometry);
    return { explain, masked, besideDisc, matched, passes: () => passes };
  }

  /** Two sums over the bytes (FNV-1a and a polynomial): 64 bits, so that pictures do not share features by accident. */
  function hash(bytes) {
    let a = 0x811c9dc5, b = 7;
    for (let i = 0; i < bytes.length; i++) {
      a = Math.imul(a ^ bytes[i], 0x01000193);
      b = (Math.imul(b, 31) + bytes[i]) | 0;
    }
    return `${a >>> 0}-${b >>> 0}`;
  }

  /** Answer the page's messages. The newest request wins: it puts an end to what an older one still has to do for its
      masked pictures. The maps of a request that has been begun are finished, or a long stroke would show none. Beside
      the disc they are judged only where the request says `judge`. */
  function startWorker(scope) {
    let work = null, waiting = null, busy = false;
    const goOn = () => new Promise((resolve) => setTimeout(() => resolve(!waiting), 0)); // lets newer messages in
    async function answer() {
      busy = true;
      while (waiting) {
        const request = waiting;
        waiting = null;
        try {
          const began = performance.now(), before = work.passes();
          const found = work.explain(request);
          const spent = { milliseconds: performance.now() - began, passes: work.passes() - before };
          scope.postMessage({ kind: "maps", id: request.id, ...found, ...spent });
          const after = (await goOn()) && (await work.masked(request.pixels, found.mask, goOn));
          if (!after) continue;
          scope.postMessage({ kind: "masked", id: request.id, ...after, milliseconds: performance.now() - began });
          const judged = (await goOn()) && request.judge &&
            (await work.besideDisc(request.pixels, found, request.temperature, goOn));
          if (judged) scope.postMessage({ kind: "judged", id: request.id, ...judged });
        } catch (error) {
          scope.postMessage({ kind: "error", id: request.id, message: error.message });
        }
      }
      busy = false;
    }
    scope.onmessage = ({ data }) => {
      if (data.kind === "start") {
        work = session(readNetwork(data.description, decodeBase64(data.weights)), data.size);
        scope.postMessage({ kind: "ready" });
      } else if (data.kind === "match") { // one pass at most, so it is answered between the steps of the others
        scope.postMessage({ kind: "matched", id: data.id, ...work.matched(data) });
      } else {
        waiting = data;
        if (!busy) answer();
      }
    };
  }

  return { decodeBase64, readNetwork, forward, softmax, cams, upsample, sddScale, logSdd, gentlePower, match, pixelCount, topMask, disc, blacken,
    judge, percent, places, strongest, inWords, session, startWorker };
}

if (typeof module !== "undefined") module.exports = explorerCore;
