// What the user has chosen, and what follows from it. Parts of the page are
// views: objects whose methods `ends`, `place` and `across` show the state
// after a change of the codes of A and B, of the place between them, or of the
// factor that goes to the right.

const SIDES = ['A', 'B'];

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const inWords = (names) => (names.length < 2 ? names.join('')
  : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`);
const namesOf = (factors) => inWords(factors.map((factor) => factor.name));

class State {
  constructor(block) {
    this.data = readBlock(block);
    this.shape = this.data.shape;
    this.factors = this.data.factors;
    this.grouped = this.factors.filter((factor) => factor.grouping);
    this.grouping = this.grouped[0].grouping;  // By which images are picked.
    this.labels = this.data.groupings[this.grouping];
    this.across = this.grouped[0];
    this.image = {};  // By side.
    this.evidence = {};  // By side and factor: images.
    this.share = {};  // By factor: 0 is the code of A, 1 that of B.
    this.shift = {};  // By factor: what is added in each dimension.
    this.views = [];
    this.status = element('p', { className: 'unseen', role: 'status' });
  }

  get others() {
    return this.factors.filter((factor) => factor !== this.across);
  }

  say(text) { this.status.textContent = text; }

  show(...changes) {
    for (const change of changes) {
      for (const view of this.views) view[change]?.();
    }
  }

  // Names of an image's groups, in every grouping.
  nameOf(image) {
    return inWords(Object.entries(this.data.groupings).map(
      ([grouping, { ids, names }]) => `${grouping} ${names[ids[image]]}`));
  }

  // The images of a group, in the grouping by which images are picked.
  imagesOf(group) {
    return this.data.images.filter((i) => this.labels.ids[i] === group);
  }

  // A side gets an image, with all of its group as evidence.
  pick(side, image) {
    this.image[side] = image;
    this.evidence[side] = Object.fromEntries(this.factors.map(
      (factor) => [factor.name, membersOf(this.data, factor, image)]));
  }

  // The content of B with the style of A, and no dimension changed.
  placeAtSwap() {
    for (const factor of this.factors) {
      this.share[factor.name] = factor === this.across ? 1 : 0;
    }
    this.clearShifts();
  }

  clearShifts() {
    for (const factor of this.factors) {
      this.shift[factor.name] = Array(factor.dim).fill(0);
    }
  }

  posteriorOf(side, factor) {
    return posterior(this.data, factor, this.evidence[side][factor.name]);
  }

  // A function from a factor and a share of the way from A to B to a code.
  get way() {
    const ends = new Map(this.factors.map((factor) => [factor, SIDES.map(
      (side) => this.posteriorOf(side, factor).mean)]));
    return (factor, share) => {
      const [a, b] = ends.get(factor);
      return a.map((value, d) => value + share * (b[d] - value));
    };
  }

  // The code of a factor at the place that the user has chosen.
  codeOf(factor, way = this.way) {
    const shift = this.shift[factor.name];
    return way(factor, this.share[factor.name]).map(
      (value, d) => value + shift[d]);
  }

  draw(canvas, code) {
    paint(canvas, this.shape,
      this.data.decode(code).map((value) => 255 * value));
  }
}

// Of the group of an image, the one whose other codes are furthest from those
// of another image.
function mostUnlike(state, image, member) {
  const distance = (i) => sum(state.others.map((factor) => {
    const [a, b] = [i, image].map((k) => normalOf(factor, k).mean);
    return sum(a.map((value, d) => (value - b[d]) ** 2));
  }));
  return state.imagesOf(state.labels.ids[member]).reduce(
    (best, i) => (distance(i) > distance(best) ? i : best));
}
