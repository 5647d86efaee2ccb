"""Rows of probes and of recognition, as evaluation.json has them."""

PROBES = [
    {'code': code, 'source': source, 'k': k, 'accuracy': 0.5 + 0.04 * k,
     'conditional_entropy': 1 / k, 'chance': 0.25}
    for code in ('who', 'how', 'untrained_who', 'how_accumulated', 'new_$code')
    for source in ('mean', 'sample') for k in (1, 2, 5)
    if (code, source) != ('new_$code', 'sample')]


def recognition(codes, nothing=None):
  """Sections of evaluation.json; numbers of the last code are missing."""
  verification = [
      {'code': code, 'score': score, 'auc': 0.4 + 0.1 * i,
       'equal_error_accuracy': 0.5, 'num_same': 9, 'num_different': 9}
      for i, code in enumerate(codes)
      for score in ('cosine', 'evidence_ratio')]
  few_shot = [
      {'code': code, 'ways': ways, 'shots': shots, 'fused': fused,
       'accuracy': 0.2 + 0.1 * i, 'chance': 1 / ways, 'standard_error': nothing}
      for ways in (20, 30) for shots in (1, 2, 3, 5, 10)
      for i, code in enumerate(codes) for fused in (False, True)[:shots]]
  verification[-1]['auc'] = few_shot[-1]['accuracy'] = nothing
  return {'verification': verification, 'few_shot': few_shot}
