// The codes: what the images of block.py say of each factor, and together.

function floatsOf32(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

// The block with its arrays read, and a list of images as indices from 0.
function readBlock(block) {
  const size = block.shape.reduce((a, b) => a * b, 1);
  const pixels = bytesOf(block.pixels);
  const images = Array.from({ length: pixels.length / size }, (_, i) => i);
  return {
    ...block,
    images,
    pixelsOf: (i) => pixels.subarray(i * size, (i + 1) * size),
    decode: makeDecoder(block.decoder),
    factors: block.factors.map((factor) => {
      const mean = floatsOf32(factor.mean);
      const limit = mean.reduce(
        (most, value) => Math.max(most, Math.abs(value)), 1);
      return { ...factor, mean, limit, logvar: floatsOf32(factor.logvar) };
    }),
  };
}

// The Normal of one image alone, dimension by dimension.
function normalOf(factor, image) {
  const part = (values) => values.subarray(
    image * factor.dim, (image + 1) * factor.dim);
  const [mean, logvar] = [part(factor.mean), part(factor.logvar)];
  return { mean: [...mean], variance: [...logvar].map(Math.exp) };
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const average = (values) => sum(values) / values.length;

// One dimension of the product of Normals: precisions add, and so does
// precision times mean (paper eqs. 6-7). `prior` is the precision of N(0, I),
// where the product includes it.
function product(means, variances, prior) {
  const precision = prior + sum(variances.map((v) => 1 / v));
  return [
    sum(means.map((m, i) => m / variances[i])) / precision, 1 / precision];
}

function mixture(means, variances) {
  const mean = average(means);
  const spread = average(means.map((m) => (m - mean) ** 2));
  return [mean, average(variances) + spread];
}

const COMBINE = {
  product: (m, v) => product(m, v, 0),
  prior_product: (m, v) => product(m, v, 1),
  harmonic: (m, v) => {
    const [mean, variance] = product(m, v, 0);
    return [mean, variance * m.length];
  },
  moments: (m, v) => [average(m), average(v)],
  mixture,
};

// What several images say together of a factor that they share: the group
// posterior of the run, as `GroupPosterior.combine` gives it.
function combine(kind, normals) {
  if (!normals.length) return null;  // The prior.
  const dimensions = normals[0].mean.map((_, d) => [
    normals.map((q) => q.mean[d]), normals.map((q) => q.variance[d])]);
  const found = kind === 'adaptive' ? adaptive(dimensions)
    : dimensions.map(([m, v]) => COMBINE[kind](m, v));
  return {
    mean: found.map(([mean]) => mean),
    variance: found.map(([, variance]) => variance),
  };
}

// Averages in the dimensions in which the images agree, mixtures in others.
function adaptive(dimensions) {
  const averages = dimensions.map(([m, v]) => [average(m), average(v)]);
  const differences = dimensions.map(([m, v], d) => {
    const [mean, variance] = averages[d];
    return average(m.map((own, i) => 0.5 * (
      Math.log(variance / v[i]) - 1 + (v[i] + (own - mean) ** 2) / variance)));
  });
  const [least, most] = [Math.min(...differences), Math.max(...differences)];
  const isTie = most - least <= 1e-5 * (1 + most);
  return dimensions.map(([m, v], d) => (
    isTie || differences[d] < least + 0.5 * (most - least)
      ? averages[d] : mixture(m, v)));
}

// A factor's posterior given the images that are evidence; of an ungrouped
// factor that of one image.
function posterior(data, factor, evidence) {
  const prior = {
    mean: Array(factor.dim).fill(0), variance: Array(factor.dim).fill(1) };
  const normals = evidence.map((image) => normalOf(factor, image));
  return (factor.grouping ? combine(data.group_posterior, normals)
    : normals[0]) || prior;
}

// The images that can be evidence for the code of an image: itself, and some
// others of its group.
function membersOf(data, factor, image) {
  if (!factor.grouping) return [image];
  const { ids } = data.groupings[factor.grouping];
  const others = data.images.filter(
    (i) => i !== image && ids[i] === ids[image]);
  return [image, ...others].slice(0, MAX_EVIDENCE);
}

const MAX_EVIDENCE = 8;

// The standard deviation that is typical of a posterior's dimensions.
function typicalDeviation(q) {
  return Math.exp(0.5 * average(q.variance.map(Math.log)));
}
