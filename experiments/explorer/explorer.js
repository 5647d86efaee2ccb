// The explorer, put together: it fills its element and shows it.

const MAX_GRID = 10;  // Images per side of the grid of swapped codes.

function makeLead(state) {
  const lead = element('p', { className: 'lead' });
  state.views.push({
    across() {
      lead.textContent = 'Drag across the square. From left to right, '
        + `${state.across.name} changes from that of image A to that of image `
        + `B; from top to bottom, ${namesOf(state.others)} `
        + `${state.others.length > 1 ? 'change' : 'changes'} likewise.`;
    },
  });
  return lead;
}

function startExplorer(root, block) {
  const state = new State(block);
  const groups = state.labels.names.map((_, group) => state.imagesOf(group)[0]);
  const heads = (groups.length > 1 ? groups : state.data.images).slice(
    0, MAX_GRID);
  state.pick('A', heads[0]);
  state.pick('B', mostUnlike(state, heads[0], heads.at(-1)));
  state.placeAtSwap();
  root.classList.toggle('small', Math.max(...state.shape.slice(0, 2)) < 48);
  root.append(
    element('h2', { className: 'unseen' }, 'Explorer of codes'),
    makeLead(state),
    element('div', { className: 'mix' },
      makeSide(state, 'A'),
      element('div', { className: 'stage' },
        element('div', { className: 'pictures' },
          makeSquare(state), makeResult(state)),
        ...state.factors.map((factor) => makeWay(state, factor)),
        ...makeChoice(state)),
      makeSide(state, 'B')),
    element('div', { className: 'below' },
      makeGrid(state, heads), makeDimensions(state)),
    state.status);
  state.show('across', 'ends', 'place');
  root.hidden = false;
  // The figure's place at the top is taken: it goes to the other pictures.
  const figure = document.getElementById('lead');
  if (figure) document.getElementById('pictures').after(figure);
}

startExplorer(
  document.getElementById('explorer'),
  JSON.parse(document.getElementById('explorer-data').textContent));
