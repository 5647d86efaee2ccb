// The explorer: two images, the square between their codes, evidence, and the
// grid of swapped codes.

const SQUARE = 5;  // Pictures per side of the square.
const MAX_GRID = 10;  // Images per side of the grid of swapped codes.
const NUM_DIMENSIONS = 5;  // Sliders per factor.
const SIDES = ['A', 'B'];

function startExplorer(root, block) {
  const data = readBlock(block);
  const { shape, factors } = data;
  const first = factors.find((factor) => factor.grouping);
  const labels = data.groupings[first.grouping];
  const grouped = factors.filter((factor) => factor.grouping);
  const state = {
    across: first,
    image: {},  // By side.
    evidence: {},  // By side and factor: indices of images.
    share: {},  // By factor: 0 is the code of A, 1 that of B.
    shift: {},  // By factor: what is added in each dimension.
  };
  const update = {};  // What shows the state, by name.
  const inWords = (names) => (names.length < 2 ? names.join('')
    : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`);
  const others = () => factors.filter((factor) => factor !== state.across);
  const namesOf = (list) => inWords(list.map((factor) => factor.name));
  const nameOf = (image, grouping = first.grouping) => {
    const { ids, names } = data.groupings[grouping];
    return `${grouping} ${names[ids[image]]}`;
  };
  const nameOfAll = (image) => inWords(
    Object.keys(data.groupings).map((grouping) => nameOf(image, grouping)));
  const say = (text) => { status.textContent = text; };
  const status = element('p', { className: 'unseen', role: 'status' });

  // Codes.

  function resetTo(side, image) {
    state.image[side] = image;
    state.evidence[side] = Object.fromEntries(factors.map(
      (factor) => [factor.name, membersOf(data, factor, image)]));
  }

  const posteriorOf = (side, factor) => posterior(
    data, factor, state.evidence[side][factor.name]);

  // The joined code at some shares of the way from A to B.
  function codeAt(ends, shareOf, shifts) {
    return factors.flatMap((factor) => {
      const [a, b] = SIDES.map((side) => ends[side][factor.name].mean);
      const share = shareOf(factor);
      return a.map((value, d) => value + share * (b[d] - value)
        + (shifts ? state.shift[factor.name][d] : 0));
    });
  }

  const endsNow = () => Object.fromEntries(SIDES.map((side) => [
    side, Object.fromEntries(factors.map(
      (factor) => [factor.name, posteriorOf(side, factor)]))]));

  function draw(canvas, code) {
    paint(canvas, shape, data.decode(code).map((value) => 255 * value));
  }

  function drawResult() {
    schedule('result', [() => draw(result, codeAt(
      endsNow(), (factor) => state.share[factor.name], true))]);
    for (const show of [update.square, update.sliders, update.dimensions]) {
      show();
    }
  }

  function drawSquare() {
    const ends = endsNow();
    schedule('square', cells.map((canvas, i) => () => draw(
      canvas, codeAt(ends, (factor) => (factor === state.across
        ? i % SQUARE : Math.floor(i / SQUARE)) / (SQUARE - 1)))));
  }

  function drawAll() {
    SIDES.forEach((side) => update[side]());
    drawSquare();
    drawResult();
  }

  // One side: an image, and the evidence for the codes that its group shares.

  function makeSide(side) {
    const select = element('select', {
      'aria-label': `${first.grouping} of image ${side}`,
      onchange: () => choose(labels.ids.indexOf(Number(select.value))),
    }, ...labels.names.map((name, i) => element('option', { value: i }, name)));
    const strip = element('div', {
      className: 'strip', role: 'radiogroup', 'aria-label': `image ${side}` });
    const parts = grouped.map((factor) => makeEvidence(side, factor));

    function choose(image) {
      resetTo(side, image);
      drawAll();
      say(`Image ${side}: ${nameOfAll(image)}.`);
    }

    update[side] = () => {
      const image = state.image[side];
      const group = labels.ids[image];
      if (strip.dataset.group !== String(group)) {
        strip.dataset.group = group;
        const members = data.images.filter((i) => labels.ids[i] === group);
        strip.replaceChildren(...members.map((i, place) => thumbnail(i, {
          type: 'radio',
          name: `image-${side}`,
          value: i,
          'aria-label': `image ${place + 1} of ${members.length}, `
            + nameOfAll(i),
          onchange: () => choose(i),
        })));
      }
      select.value = group;
      for (const input of strip.querySelectorAll('input')) {
        input.checked = Number(input.value) === image;
      }
      parts.forEach((part) => part.show());
    };
    return element(
      'section', { className: `side ${side}`, 'aria-label': `Image ${side}` },
      element('h3', {}, element('b', {}, side), ' ', select), strip,
      ...parts.map((part) => part.made));
  }

  function thumbnail(image, properties) {
    const canvas = canvasFor(shape, { 'aria-hidden': true });
    paint(canvas, shape, data.pixelsOf(image));
    return element('label', { className: 'thumbnail', title: nameOfAll(image) },
      element('input', properties), canvas);
  }

  function makeEvidence(side, factor) {
    const strip = element('div', {
      className: 'strip', role: 'group',
      'aria-label': `evidence for the ${factor.name} of ${side}` });
    const chart = element('div', { className: 'chart', 'aria-hidden': true });
    const bar = element('span', { className: 'bar', 'aria-hidden': true },
      element('i'));
    const text = element('p', { className: 'soft' });
    const button = element('button', { type: 'button', onclick: play },
      'Add one by one');
    let members = [];
    let timer = 0;

    function use(evidence, isSaid) {
      state.evidence[side][factor.name] = evidence;
      drawAll();
      if (isSaid) say(`Evidence for the ${factor.name} of ${side}: ${words()}`);
    }

    function words() {
      const count = state.evidence[side][factor.name].length;
      const deviation = typicalDeviation(posteriorOf(side, factor));
      return `${count} of ${members.length} images, typical standard deviation `
        + `${deviation.toFixed(2)} (prior: 1).`;
    }

    // The bar is full at the uncertainty that the first image alone leaves.
    const alone = () => typicalDeviation(
      posterior(data, factor, members.slice(0, 1)));

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

    function show() {
      const found = membersOf(data, factor, state.image[side]);
      if (found.join() !== members.join()) {
        members = found;
        button.hidden = members.length < 2;
        strip.replaceChildren(...members.map((i, place) => thumbnail(i, {
          type: 'checkbox',
          value: i,
          'aria-label': `${place ? `image ${place + 1}` : `image ${side}`} as `
            + `evidence for the ${factor.name} of ${side}`,
          onchange: () => {
            clearInterval(timer);
            use(members.filter((_, k) => inputs()[k].checked), true);
          },
        })));
      }
      const used = new Set(state.evidence[side][factor.name]);
      inputs().forEach((input, k) => { input.checked = used.has(members[k]); });
      const q = posteriorOf(side, factor);
      showCode(chart, factor, q);
      const deviation = typicalDeviation(q);
      bar.firstChild.style.width = (
        `${100 * Math.min(deviation / alone(), 1)}%`);
      text.textContent = words();
    }

    const inputs = () => [...strip.querySelectorAll('input')];
    return {
      show,
      made: element('div', { className: 'evidence' },
        element('h4', {}, `Evidence for ${factor.name}`), strip, chart, bar,
        text, button),
    };
  }

  const limits = new Map(factors.map((factor) => [factor, factor.mean.reduce(
    (most, value) => Math.max(most, Math.abs(value)), 1)]));

  // A code as an interval per dimension: its mean, and two deviations.
  function showCode(chart, factor, q) {
    const shown = factor.dimensions.slice(0, 16);
    while (chart.children.length < shown.length) {
      chart.append(element('i', {}, element('i'), element('b')));
    }
    const place = (value) => 50 - 50 * Math.max(
      -1, Math.min(1, value / limits.get(factor)));
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

  // The square between the codes of A and B, and what is decoded there.

  const cells = Array.from(
    { length: SQUARE ** 2 }, () => canvasFor(shape));
  const marker = element('span', { className: 'marker' });
  const square = element('div', {
    className: 'square', 'aria-hidden': true,
    onpointerdown: (event) => {
      square.setPointerCapture(event.pointerId);
      moveTo(event);
    },
    onpointermove: (event) => {
      if (square.hasPointerCapture(event.pointerId)) moveTo(event);
    },
  }, ...cells, marker,
  element('b', { className: 'corner A' }, 'A'),
  element('b', { className: 'corner B' }, 'B'));
  const result = canvasFor(shape, { role: 'img' });
  const caption = element('figcaption', { 'aria-hidden': true });

  // The centres of the outer pictures are the ends of both ways.
  function moveTo(event) {
    const box = square.getBoundingClientRect();
    const share = (at, size) => Math.max(0, Math.min(1,
      (at / size * SQUARE - 0.5) / (SQUARE - 1)));
    const right = share(event.clientX - box.left, box.width);
    const down = share(event.clientY - box.top, box.height);
    for (const factor of factors) {
      state.share[factor.name] = factor === state.across ? right : down;
    }
    drawResult();
  }

  update.square = () => {
    const place = (share) => (
      `${100 * (share * (SQUARE - 1) + 0.5) / SQUARE}%`);
    marker.style.left = place(state.share[state.across.name]);
    marker.style.top = place(
      average(others().map((factor) => state.share[factor.name])));
    result.setAttribute('aria-label', `Decoded: ${describe()}`);
    caption.textContent = capital(describe());
  };

  const describe = () => factors.map((factor) => {
    const share = Math.round(100 * state.share[factor.name]);
    return `${factor.name} ${share === 0 ? 'of A' : share === 100 ? 'of B'
      : `${share} % from A to B`}`;
  }).join(', ');

  const sliders = factors.map((factor) => element('input', {
    type: 'range', min: 0, max: 100, step: 1,
    'aria-label': `${factor.name}, from A to B`,
    oninput: (event) => {
      state.share[factor.name] = event.target.value / 100;
      drawResult();
    },
  }));
  update.sliders = () => factors.forEach((factor, k) => {
    const share = Math.round(100 * state.share[factor.name]);
    sliders[k].value = share;
    sliders[k].setAttribute(
      'aria-valuetext', `${share} % of the way from A to B`);
  });

  // Sliders of single dimensions.

  function makeDimensions() {
    const rows = factors.flatMap((factor) => {
      const limit = Math.max(3, Math.ceil(limits.get(factor)));
      return factor.dimensions.slice(0, NUM_DIMENSIONS).map((d) => {
        const name = `${factor.name}[${d}]`;
        const input = element('input', {
          type: 'range', min: -limit, max: limit, step: 0.05,
          'aria-label': name,
          oninput: () => {
            state.shift[factor.name][d] += Number(input.value) - valueOf();
            drawResult();
          },
        });
        const valueOf = () => {
          const [a, b] = SIDES.map((side) => posteriorOf(side, factor).mean[d]);
          return a + state.share[factor.name] * (b - a)
            + state.shift[factor.name][d];
        };
        return { input, valueOf, made: element(
          'label', { className: 'dimension' }, element('code', {}, name),
          input) };
      });
    });
    update.dimensions = () => rows.forEach(({ input, valueOf }) => {
      const value = valueOf();
      // What the user holds is not moved by a step.
      if (Math.abs(Number(input.value) - value) > 0.026) input.value = value;
      input.setAttribute('aria-valuetext', value.toFixed(2));
    });
    return element('section', { className: 'dimensions' },
      element('h3', {}, 'Single dimensions', element('button', {
        type: 'button',
        onclick: () => {
          clearShifts();
          drawResult();
          say('The dimensions are back on the way from A to B.');
        },
      }, 'Reset')),
      element('p', { className: 'soft' },
        'Those that differ most between images come first.'),
      ...rows.map((row) => row.made),
      element('p', { className: 'soft' },
        'Charts show the mean of each dimension, and two standard deviations '
        + 'to either side. Pictures are decoded from means, in this page, with '
        + `weights of 16 bits. ${data.given}`));
  }

  function clearShifts() {
    for (const factor of factors) {
      state.shift[factor.name] = Array(factor.dim).fill(0);
    }
  }

  // The grid of swapped codes.

  const perGroup = labels.names.map((_, group) => labels.ids.indexOf(group));
  const heads = (perGroup.length > 1 ? perGroup : data.images)
    .slice(0, MAX_GRID);
  const explanation = element('p', { className: 'soft' });

  function makeGrid() {
    const head = (image, scope) => {
      const canvas = canvasFor(shape, {
        role: 'img', 'aria-label': nameOfAll(image) });
      paint(canvas, shape, data.pixelsOf(image));
      return element('th', { scope }, canvas);
    };
    const grid = heads.map((row, r) => heads.map((column, c) => element('td', {
      role: 'gridcell', tabIndex: r + c ? -1 : 0,
      onpointerenter: () => explain(row, column),
      onfocus: () => explain(row, column),
      onclick: () => open(row, column),
      onkeydown: (event) => move(event, r, c),
    }, canvasFor(shape, { role: 'img' }))));

    function words(row, column) {
      return `${capital(namesOf([state.across]))} from ${nameOfAll(column)} `
        + `(top of the column), ${namesOf(others())} from ${nameOfAll(row)} `
        + '(left of the row)';
    }

    function explain(row, column) {
      explanation.textContent = `${words(row, column)}. Click to open it above.`;
    }

    function open(row, column) {
      resetTo('A', row);
      resetTo('B', column);
      clearShifts();
      for (const factor of factors) {
        state.share[factor.name] = factor === state.across ? 1 : 0;
      }
      drawAll();
      say(`Opened above: ${words(row, column)}.`);
    }

    function move(event, r, c) {
      const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1],
        ArrowRight: [0, 1] }[event.key];
      if (event.key === 'Enter' || event.key === ' ') open(heads[r], heads[c]);
      else if (!by) return;
      event.preventDefault();
      const next = by && grid[r + by[0]]?.[c + by[1]];
      if (!next) return;
      grid[r][c].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }

    update.grid = () => {
      explanation.textContent = `${capital(state.across.name)} from the top of `
        + `the column, ${namesOf(others())} from the left of the row. Point at `
        + 'a picture, or move with the arrow keys.';
      const means = new Map(heads.map((image) => [image, factors.map((factor) =>
        posterior(data, factor, membersOf(data, factor, image)).mean)]));
      schedule('grid', heads.flatMap((row, r) => heads.map((column, c) => () => {
        const cell = grid[r][c];
        draw(cell.firstChild, factors.flatMap((factor, k) => means.get(
          factor === state.across ? column : row)[k]));
        cell.firstChild.setAttribute('aria-label', words(row, column));
      })));
    };
    return element('section', { className: 'swaps' },
      element('h3', {}, 'Swapped codes'),
      element('table', { role: 'grid', 'aria-label': 'Swapped codes' },
        element('thead', {}, element('tr', {}, element('td', { 'aria-hidden': true }),
          ...heads.map((image) => head(image, 'col')))),
        element('tbody', {}, ...heads.map((image, r) => element(
          'tr', {}, head(image, 'row'), ...grid[r])))),
      explanation);
  }

  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  // What goes to the right, where there are several factors to choose from.
  function makeChoice() {
    if (factors.length < 3) return [];
    const select = element('select', {
      onchange: () => {
        state.across = factors[select.value];
        update.across();
        drawAll();
        update.grid();
      },
    }, ...factors.map((factor, k) => element(
      'option', { value: k, selected: factor === state.across },
      factor.name)));
    return [element('label', {}, 'To the right and from the columns: ', select)];
  }

  // Of the group of an image, the one whose other codes are furthest from
  // another image's.
  function mostUnlike(image, other) {
    const distance = (i) => sum(others().map((factor) => {
      const [a, b] = [i, image].map((k) => normalOf(factor, k).mean);
      return sum(a.map((value, d) => (value - b[d]) ** 2));
    }));
    return data.images.filter((i) => labels.ids[i] === labels.ids[other])
      .reduce((best, i) => (distance(i) > distance(best) ? i : best));
  }

  // The page.

  const lead = element('p', { className: 'lead' });
  update.across = () => {
    lead.textContent = 'Drag across the square: to the right, '
      + `${state.across.name} changes from that of image A to that of image B; `
      + `downwards, ${namesOf(others())} ${others().length > 1 ? 'do' : 'does'}.`;
  };
  resetTo('A', heads[0]);
  resetTo('B', mostUnlike(heads[0], heads.at(-1)));
  for (const factor of factors) {
    state.share[factor.name] = factor === state.across ? 1 : 0;
  }
  clearShifts();
  root.classList.toggle('small', Math.max(...shape.slice(0, 2)) < 48);
  root.append(
    element('h2', { className: 'unseen' }, 'Explorer of codes'),
    lead,
    element('div', { className: 'mix' },
      makeSide('A'),
      element('div', { className: 'stage' },
        element('div', { className: 'pictures' }, square,
          element('figure', { className: 'result' }, result, caption)),
        ...factors.map((factor, k) => element('div', { className: 'way' },
          element('span', {}, factor.name), element('b', { className: 'A' }, 'A'),
          sliders[k], element('b', { className: 'B' }, 'B'))),
        ...makeChoice()),
      makeSide('B')),
    element('div', { className: 'below' }, makeGrid(), makeDimensions()),
    status);
  update.across();
  drawAll();
  update.grid();
  root.hidden = false;
  // Its place is taken; the figure goes to the others.
  const figure = document.getElementById('lead');
  const pictures = document.getElementById('pictures');
  if (figure && pictures) pictures.after(figure);
}

startExplorer(
  document.getElementById('explorer'),
  JSON.parse(document.getElementById('explorer-data').textContent));
