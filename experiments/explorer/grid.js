// The grid of swapped codes, whose pictures are explained and can be opened.

const ARROWS = {
  ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function makeGrid(state, heads) {
  const explanation = element('p', { className: 'soft' });
  const cells = heads.map((row, r) => heads.map((column, c) => element('td', {
    role: 'gridcell', tabIndex: r + c ? -1 : 0,
    onpointerenter: () => explain(row, column),
    onfocus: () => explain(row, column),
    onclick: () => open(row, column),
    onkeydown: (event) => onKey(event, r, c),
  }, canvasFor(state.shape, { role: 'img' }))));

  function words(row, column) {
    return `${capital(state.across.name)} of the image at the top of the `
      + `column (${state.nameOf(column)}), ${namesOf(state.others)} of the `
      + `image at the left of the row (${state.nameOf(row)})`;
  }

  function explain(row, column) {
    explanation.textContent = (
      `${words(row, column)}. Click or press Enter to open it in the square.`);
  }

  function open(row, column) {
    state.pick('A', row);
    state.pick('B', column);
    state.placeAtSwap();
    state.show('ends', 'place');
    state.say(`Opened in the square: ${words(row, column)}.`);
  }

  function onKey(event, r, c) {
    const isOpened = event.key === 'Enter' || event.key === ' ';
    if (!isOpened && !(event.key in ARROWS)) return;
    event.preventDefault();
    if (isOpened) {
      open(heads[r], heads[c]);
      return;
    }
    const [down, right] = ARROWS[event.key];
    const next = cells[r + down]?.[c + right];
    if (!next) return;
    // One stop of the tab key for the whole grid.
    cells[r][c].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  function across() {
    explanation.textContent = `${capital(state.across.name)} from the top of `
      + `the column, ${namesOf(state.others)} from the left of the row. Point `
      + 'at a picture, or move with the arrow keys.';
    const codes = new Map(heads.map((image) => [image, new Map(
      state.factors.map((factor) => [factor, posterior(
        state.data, factor, membersOf(state.data, factor, image)).mean]))]));
    const fill = (cell, row, column) => {
      const [canvas] = cell.children;
      state.draw(canvas, state.factors.flatMap((factor) => codes.get(
        factor === state.across ? column : row).get(factor)));
      canvas.setAttribute('aria-label', words(row, column));
    };
    schedule('grid', heads.flatMap((row, r) => heads.map(
      (column, c) => () => fill(cells[r][c], row, column))));
  }

  function head(image, scope) {
    const canvas = canvasFor(state.shape, {
      role: 'img', 'aria-label': state.nameOf(image) });
    paint(canvas, state.shape, state.data.pixelsOf(image));
    return element('th', { scope }, canvas);
  }

  state.views.push({ across });
  const table = element(
    'table', { role: 'grid', 'aria-label': 'Swapped codes' },
    element('thead', {}, element(
      'tr', {}, element('td', { 'aria-hidden': true }),
      ...heads.map((image) => head(image, 'col')))),
    element('tbody', {}, ...heads.map((image, r) => element(
      'tr', {}, head(image, 'row'), ...cells[r]))));
  table.style.maxWidth = `${6 * (heads.length + 1)}rem`;  // Of few images.
  return element('section', { className: 'swaps' },
    element('h3', {}, 'Swapped codes'), table, explanation);
}
