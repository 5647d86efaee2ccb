"""Files that are written completely or not at all."""

import pytest

from mlvae_jax.files import named_errors, write_atomically


@pytest.mark.parametrize('content', ['größer\n', b'\xff\x00'])
def test_a_file_is_replaced(tmp_path, content):
  path = tmp_path / 'file'
  path.write_text('before')
  write_atomically(path, content)
  assert path.read_bytes() == (
      content if isinstance(content, bytes) else content.encode())
  assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path):
  (tmp_path / 'file' / 'inside').mkdir(parents=True)
  with pytest.raises(IsADirectoryError):
    write_atomically(tmp_path / 'file', 'text')
  assert list(tmp_path.iterdir()) == [tmp_path / 'file']


@pytest.mark.parametrize('error, name', [
    (OSError(28, 'No space left on device'), 'file'),
    (OSError(28, 'No space left on device', 'other'), 'other'),
    (OSError('not of the system'), None)])
def test_errors_name_their_file(error, name):
  with pytest.raises(OSError) as raised, named_errors('file'):
    raise error
  assert raised.value.filename == name
