// Elements of the page: making them, painting canvases, work in small pieces.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== 'list') made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// A canvas of one image's size; the style sheet scales it.
function canvasFor(shape, properties = {}) {
  const [height, width] = shape;
  return element('canvas', { width, height, ...properties });
}

// Paints values from 0 to 255; those outside are cut off.
function paint(canvas, shape, values) {
  const [height, width, channels] = shape;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let p = 0; p < width * height; p++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * p + c] = values[p * channels + (channels === 3 ? c : 0)];
    }
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Work in pieces between frames, what the user waits for first. New work of
// the same name takes the place of what is left of the old.
const ORDER = ['result', 'square', 'grid'];
const waiting = new Map();

function schedule(name, pieces) {
  const isIdle = ORDER.every((other) => !waiting.get(other)?.length);
  waiting.set(name, pieces);
  if (isIdle) requestAnimationFrame(work);
}

function work() {
  const start = performance.now();
  let name;
  do {
    name = ORDER.find((other) => waiting.get(other)?.length);
    if (name) waiting.get(name).shift()();
  } while (name && performance.now() - start < 12);
  if (name) requestAnimationFrame(work);
}
