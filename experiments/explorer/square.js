// The square between the codes of A and B, what is decoded at a place in it,
// and sliders: of the place, and of single dimensions.

const SQUARE = 5;  // Pictures per side.
const NUM_DIMENSIONS = 5;  // Sliders per factor.

function makeSquare(state) {
  const cells = Array.from(
    { length: SQUARE ** 2 }, () => canvasFor(state.shape));
  const marker = element('span', { className: 'marker' });
  const square = element('div', {
    className: 'square',
    'aria-hidden': true,  // The sliders do the same.
    onpointerdown: (event) => {
      square.setPointerCapture(event.pointerId);
      moveTo(event);
    },
    onpointermove: (event) => {
      if (square.hasPointerCapture(event.pointerId)) moveTo(event);
    },
  }, ...cells, marker, element('b', { className: 'corner A' }, 'A'),
  element('b', { className: 'corner B' }, 'B'));

  // The centres of the outer pictures are the ends of both ways.
  function moveTo(event) {
    const box = square.getBoundingClientRect();
    const share = (at, size) => Math.max(0, Math.min(1,
      (at / size * SQUARE - 0.5) / (SQUARE - 1)));
    const right = share(event.clientX - box.left, box.width);
    const down = share(event.clientY - box.top, box.height);
    for (const factor of state.factors) {
      state.share[factor.name] = factor === state.across ? right : down;
    }
    state.show('place');
  }

  state.views.push({
    ends() {
      const way = state.way;
      schedule('square', cells.map((canvas, i) => () => state.draw(
        canvas, state.factors.flatMap((factor) => way(
          factor, (factor === state.across
            ? i % SQUARE : Math.floor(i / SQUARE)) / (SQUARE - 1))))));
    },
    place() {
      const place = (share) => (
        `${100 * (share * (SQUARE - 1) + 0.5) / SQUARE}%`);
      marker.style.left = place(state.share[state.across.name]);
      marker.style.top = place(average(
        state.others.map((factor) => state.share[factor.name])));
    },
  });
  return square;
}

function makeResult(state) {
  const canvas = canvasFor(state.shape, { role: 'img' });
  const caption = element('figcaption', { 'aria-hidden': true });
  state.views.push({
    place() {
      const way = state.way;
      schedule('result', [() => state.draw(canvas, state.factors.flatMap(
        (factor) => state.codeOf(factor, way)))]);
      const said = state.factors.map((factor) => {
        const share = Math.round(100 * state.share[factor.name]);
        return `${factor.name} ${share === 0 ? 'of A' : share === 100 ? 'of B'
          : `${share} % of the way from A to B`}`;
      }).join(', ');
      canvas.setAttribute('aria-label', `Decoded: ${said}`);
      caption.textContent = capital(said);
    },
  });
  return element('figure', { className: 'result' }, canvas, caption);
}

function makeWay(state, factor) {
  const slider = element('input', {
    type: 'range', min: 0, max: 100, step: 1,
    'aria-label': `${factor.name}, from A to B`,
    oninput: () => {
      state.share[factor.name] = slider.value / 100;
      state.show('place');
    },
  });
  state.views.push({
    place() {
      const share = Math.round(100 * state.share[factor.name]);
      slider.value = share;
      slider.setAttribute(
        'aria-valuetext', `${share} % of the way from A to B`);
    },
  });
  return element('div', { className: 'way' },
    element('span', {}, factor.name), element('b', { className: 'A' }, 'A'),
    slider, element('b', { className: 'B' }, 'B'));
}

// What goes to the right, where there are several factors to choose from.
function makeChoice(state) {
  if (state.factors.length < 3) return [];
  const select = element('select', {
    onchange: () => {
      state.across = state.factors[select.value];
      state.show('across', 'ends', 'place');
    },
  }, ...state.factors.map((factor, k) => element(
    'option', { value: k, selected: factor === state.across }, factor.name)));
  return [element('label', {}, 'Changes from left to right: ', select)];
}

function makeDimension(state, factor, d) {
  const name = `${factor.name}[${d}]`;
  const limit = Math.max(3, Math.ceil(factor.limit));
  const valueOf = () => state.codeOf(factor)[d];
  const slider = element('input', {
    type: 'range', min: -limit, max: limit, step: 0.05, 'aria-label': name,
    oninput: () => {
      state.shift[factor.name][d] += Number(slider.value) - valueOf();
      state.show('place');
    },
  });
  state.views.push({
    place() {
      const value = valueOf();
      // What the user holds is not moved by less than a step.
      if (Math.abs(Number(slider.value) - value) > 0.026) slider.value = value;
      slider.setAttribute('aria-valuetext', value.toFixed(2));
    },
  });
  return element('label', { className: 'dimension' },
    element('code', {}, name), slider);
}

function makeDimensions(state) {
  return element('section', { className: 'dimensions' },
    element('h3', {}, 'Single dimensions', element('button', {
      type: 'button',
      onclick: () => {
        state.clearShifts();
        state.show('place');
        state.say('Changes to single dimensions are undone.');
      },
    }, 'Reset')),
    element('p', { className: 'soft' },
      `Up to ${NUM_DIMENSIONS} of each code: those that differ most between `
      + 'images, in this order.'),
    ...state.factors.flatMap((factor) => factor.dimensions
      .slice(0, NUM_DIMENSIONS).map((d) => makeDimension(state, factor, d))),
    element('p', { className: 'soft' },
      `Charts show up to ${NUM_CHARTED} dimensions of a code, in the same `
      + 'order: the mean, and two standard deviations to either side. '
      + 'Pictures are decoded in this page, from means and with 16-bit '
      + `weights. ${state.data.given}`));
}
