"""Rows of the sections on several groupings, as evaluation.json has them."""


def row(code, label, accuracy, source='mean'):
  return {'code': code, 'label': label, 'strategy': 1, 'source': source,
          'accuracy': accuracy, 'conditional_entropy': 0.5, 'chance': 0.25}


def _strategy(number, **kl):
  return {'strategy': number, 'split': 'test', 'images': 1234, 'set_size': 11,
          'elbo_per_image': -50.5, 'log_lik': -40.25, 'kl': kl,
          'log_lik_of_means': -39.0, 'squared_error': 0.015625}


SECTIONS = {
    'factors': [
        row(code, label, accuracy) for code, label, accuracy in (
            ('who', 'who', 1.0), ('who', 'light', 0.3), ('style', 'who', 0.2),
            ('style', 'light', 0.9), ('pixels', 'who', 0.7))
    ] + [row('who', 'who', 0.875, 'sample')],
    'disentanglement': [
        {'code': 'all', 'label': None, 'mig': 0.5, 'disentanglement': 0.25,
         'completeness': 0.125, 'error': 0.0625},
        {'code': 'all', 'label': 'who', 'mig': 0.75, 'completeness': 0.125,
         'error': 0.0625, 'dimension': 'who[2]', 'information': 0.5}],
    'strategies': [_strategy(1, who=8.0, style=2.25),
                   _strategy(2, who=1.0, style=2.25)],
}
