// The sides A and B: an image, and the evidence for the codes of its groups.

const NUM_CHARTED = 16;  // Dimensions.

function thumbnail(state, image, properties) {
  const canvas = canvasFor(state.shape, { 'aria-hidden': true });
  paint(canvas, state.shape, state.data.pixelsOf(image));
  return element(
    'label', { className: 'thumbnail', title: state.nameOf(image) },
    element('input', properties), canvas);
}

function makeSide(state, side) {
  const { labels, grouping } = state;
  const select = element('select', {
    'aria-label': `${grouping} of image ${side}`,
    onchange: () => choose(state.imagesOf(Number(select.value))[0]),
  }, ...labels.names.map((name, i) => element('option', { value: i }, name)));
  const strip = element('div', {
    className: 'strip', role: 'radiogroup', 'aria-label': `image ${side}` });

  function choose(image) {
    state.pick(side, image);
    state.show('ends', 'place');
    state.say(`Image ${side}: ${state.nameOf(image)}.`);
  }

  function fill(group) {
    strip.dataset.group = group;
    const members = state.imagesOf(group);
    strip.replaceChildren(...members.map((i, place) => thumbnail(state, i, {
      type: 'radio',
      name: `image-${side}`,
      value: i,
      'aria-label':
        `image ${place + 1} of ${members.length}, ${state.nameOf(i)}`,
      onchange: () => choose(i),
    })));
  }

  state.views.push({
    ends() {
      const image = state.image[side];
      const group = labels.ids[image];
      if (strip.dataset.group !== String(group)) fill(group);
      select.value = group;
      for (const input of strip.querySelectorAll('input')) {
        input.checked = Number(input.value) === image;
      }
    },
  });
  return element(
    'section', { className: `side ${side}`, 'aria-label': `Image ${side}` },
    element('h3', {}, element('b', {}, side), ' ', select), strip,
    ...state.grouped.map((factor) => makeEvidence(state, side, factor)));
}

function makeEvidence(state, side, factor) {
  const what = `the ${factor.name} of ${side}`;
  const strip = element('div', {
    className: 'strip', role: 'group', 'aria-label': `evidence for ${what}` });
  const chart = element('div', { className: 'chart', 'aria-hidden': true });
  const bar = element('span', { className: 'bar', 'aria-hidden': true },
    element('i'));
  const text = element('p', { className: 'soft' });
  const button = element('button', { type: 'button', onclick: play },
    'Add images one by one');
  let members = [];
  let timer = 0;
  const inputs = () => [...strip.querySelectorAll('input')];

  function use(evidence, isSaid) {
    state.evidence[side][factor.name] = evidence;
    state.show('ends', 'place');
    if (isSaid) state.say(`Evidence for ${what}: ${text.textContent}`);
  }

  function play() {
    clearInterval(timer);
    let count = 1;
    const started = members;
    use(started.slice(0, count));
    timer = setInterval(() => {
      const isLast = ++count >= started.length;
      if (started !== members || isLast) clearInterval(timer);
      if (started === members) use(started.slice(0, count), isLast);
    }, 700);
  }

  function fill(found) {
    members = found;
    button.hidden = members.length < 2;
    strip.replaceChildren(...members.map((i, place) => thumbnail(state, i, {
      type: 'checkbox',
      'aria-label': `${place ? `image ${place + 1}` : `image ${side}`} as `
        + `evidence for ${what}`,
      onchange: () => {
        clearInterval(timer);
        use(members.filter((_, k) => inputs()[k].checked), true);
      },
    })));
  }

  state.views.push({
    ends() {
      const found = membersOf(state.data, factor, state.image[side]);
      if (found.join() !== members.join()) fill(found);
      const used = state.evidence[side][factor.name];
      inputs().forEach((input, k) => {
        input.checked = used.includes(members[k]);
      });
      const q = state.posteriorOf(side, factor);
      showCode(chart, factor, q);
      // The bar is full at the uncertainty that the first image alone leaves.
      const deviation = typicalDeviation(q);
      const alone = typicalDeviation(
        posterior(state.data, factor, members.slice(0, 1)));
      bar.firstChild.style.width = `${100 * Math.min(deviation / alone, 1)}%`;
      text.textContent = `${used.length} of ${members.length} images, typical `
        + `standard deviation ${deviation.toFixed(2)} (prior: 1).`;
    },
  });
  return element('div', { className: 'evidence' },
    element('h4', {}, `Evidence for ${factor.name}`), strip, chart, bar, text,
    button);
}

// A code as an interval per dimension: its mean, and two deviations.
function showCode(chart, factor, q) {
  const shown = factor.dimensions.slice(0, NUM_CHARTED);
  while (chart.children.length < shown.length) {
    chart.append(element('i', {}, element('i'), element('b')));
  }
  const place = (value) => 50 - 50 * Math.max(
    -1, Math.min(1, value / factor.limit));
  shown.forEach((d, k) => {
    const [interval, mean] = chart.children[k].children;
    const deviation = Math.sqrt(q.variance[d]);
    const [top, bottom] = [2, -2].map(
      (times) => place(q.mean[d] + times * deviation));
    interval.style.top = `${top}%`;
    interval.style.height = `${bottom - top}%`;
    mean.style.top = `${place(q.mean[d])}%`;
  });
}
