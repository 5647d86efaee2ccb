"""A table: wines of three cultivars, 13 measurements each (scikit-learn's).

    python examples/wine.py

Wines of a cultivar are a group: what they share is content. Held-out wines are
assigned to the cultivar whose content is nearest to their own.
"""

import sys

import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import mlvae_jax as ml


def main(steps: int = 600) -> tuple[float, float]:
  """Accuracy on held-out wines: by content, and by logistic regression."""
  x, y = load_wine(return_X_y=True)
  train, test, labels, truth = train_test_split(
      x, y, test_size=0.4, stratify=y, random_state=0)
  scale = StandardScaler().fit(train)
  train, test = np.float32(scale.transform(train)), scale.transform(test)

  data = ml.GroupedData.from_labels(train, labels)
  model = ml.Model(ml.ml_vae(4, 4), observation_shape=(13,),
                   likelihood=ml.Gaussian(0.5, learn=True),
                   network=ml.MLP((32,)))
  # Evidence of random size makes the code of a single wine useful by itself.
  params, _ = ml.fit(model, data, steps=steps, evidence='random',
                     config=ml.TrainConfig(learning_rate=3e-3))

  cultivars = ml.encode_group(model, params, train, labels, num_groups=3)
  wines = ml.encode_group(
      model, params, np.float32(test), np.arange(len(test)), len(test))
  distance = np.linalg.norm(wines.mean[:, None] - cultivars.mean, axis=-1)
  ours = np.mean(distance.argmin(axis=1) == truth)
  regression = LogisticRegression().fit(train, labels)
  return float(ours), float(regression.score(test, truth))


if __name__ == '__main__':
  print('accuracy by content {:.3f}, by logistic regression {:.3f}'.format(
      *main(*map(int, sys.argv[1:]))))
