"""A headless Chromium, driven through a pipe in its DevTools protocol."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time

EXECUTABLE = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome', 'chrome'))), None)
_TIMEOUT = 60.0  # Seconds.
# Starts a program with two of its files as numbers 3 and 4.
_START = '''
import fcntl, os, sys
files = [fcntl.fcntl(int(file), fcntl.F_DUPFD, 10) for file in sys.argv[1:3]]
for number, file in enumerate(files, start=3):
  os.dup2(file, number)
os.execv(sys.argv[3], sys.argv[3:])
'''


class Page:
  """A page that is open in the browser."""

  def __init__(self, send, receive):
    self._send, self._receive, self._count = send, receive, 0
    self.session, self.events = None, []
    target = self.call('Target.createTarget', url='about:blank')
    self.session = self.call('Target.attachToTarget', flatten=True,
                             targetId=target['targetId'])['sessionId']
    for domain in ('Page', 'Runtime', 'Network', 'Log', 'Accessibility'):
      self.call(f'{domain}.enable')

  def call(self, method, **params):
    """Calls a method of the protocol; its result."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': params}
    if self.session:
      message['sessionId'] = self.session
    self._send(message)
    while True:
      message = self._receive()
      if message.get('id') == self._count:
        assert 'error' not in message, message['error']
        return message['result']
      self.events.append(message)

  def open(self, path):
    """Opens a file, and waits until it has been loaded."""
    self.events.clear()
    self.call('Page.navigate', url=f'file://{os.path.abspath(path)}')
    self.wait('document.readyState === "complete" && location.href != '
              '"about:blank"')

  def run(self, script):
    """Runs JavaScript; its value."""
    found = self.call('Runtime.evaluate', expression=script,
                      returnByValue=True, awaitPromise=True)
    assert 'exceptionDetails' not in found, found['exceptionDetails']
    return found['result'].get('value')

  def wait(self, condition):
    """Waits until a condition in JavaScript holds."""
    end = time.monotonic() + _TIMEOUT
    while not self.run(f'Boolean({condition})'):
      assert time.monotonic() < end, f'never true: {condition}'
      time.sleep(0.02)

  def settle(self):
    """Waits until two frames have been drawn without any change of a picture.
    """
    before = None
    while before != (before := self.run("""
        new Promise((done) => requestAnimationFrame(() => setTimeout(
          () => requestAnimationFrame(() => done(
            [...document.querySelectorAll('canvas')].map((canvas) =>
              canvas.toDataURL()).join())), 30)))""")):
      pass

  def place_of(self, selector, x=0.5, y=0.5):
    """A point of an element, after scrolling to it."""
    return self.run(f"""(() => {{
        const found = document.querySelector({json.dumps(selector)});
        found.scrollIntoView({{block: 'center'}});
        const box = found.getBoundingClientRect();
        return [box.left + {x} * box.width, box.top + {y} * box.height];
    }})()""")

  def mouse(self, kind, x, y, **params):
    """Sends a mouse event: 'Moved', 'Pressed' or 'Released'."""
    self.call('Input.dispatchMouseEvent', type=f'mouse{kind}', x=x, y=y,
              button='none' if kind == 'Moved' and not params else 'left',
              clickCount=int(kind != 'Moved'), **params)

  def click(self, selector, x=0.5, y=0.5):
    """Clicks on a point of an element."""
    place = self.place_of(selector, x, y)
    self.mouse('Moved', *place)
    self.mouse('Pressed', *place)
    self.mouse('Released', *place)

  def press(self, key):
    """Presses a key, such as 'ArrowRight', 'Tab' or ' '."""
    codes = {'ArrowLeft': 37, 'ArrowUp': 38, 'ArrowRight': 39, 'ArrowDown': 40,
             'Tab': 9, 'Enter': 13, ' ': 32}
    for kind in ('rawKeyDown', 'keyUp'):
      self.call('Input.dispatchKeyEvent', type=kind, key=key,
                code={' ': 'Space'}.get(key, key),
                windowsVirtualKeyCode=codes[key])

  def look(self, width=1280, height=900, dark=False):
    """Sets the size of the window, and light or dark."""
    self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
              deviceScaleFactor=1, mobile=False)
    self.call('Emulation.setEmulatedMedia', features=[
        {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}])

  def screenshot(self, path, **clip):
    """Saves what the window shows, or a part of the page, as a PNG."""
    found = self.call(
        'Page.captureScreenshot', **(
            {'clip': clip | {'scale': 1}, 'captureBeyondViewport': True}
            if clip else {}))
    with open(path, 'wb') as file:
      file.write(base64.b64decode(found['data']))

  def names(self):
    """(role, name) of every element that assistive technology is told of."""
    nodes = self.call('Accessibility.getFullAXTree')['nodes']
    return [(node['role']['value'], node.get('name', {}).get('value', ''))
            for node in nodes if not node['ignored'] and 'role' in node]

  def problems(self):
    """Errors, and addresses of what was loaded besides files."""
    found = []
    for event in self.events:
      params = event.get('params', {})
      if event['method'] == 'Runtime.exceptionThrown':
        found.append(params['exceptionDetails'])
      elif event['method'] == 'Log.entryAdded':
        if params['entry']['level'] == 'error':
          found.append(params['entry']['text'])
      elif event['method'] == 'Network.requestWillBeSent':
        url = params['request']['url']
        if not url.startswith(('file:', 'data:')):
          found.append(url)
    return found


@contextlib.contextmanager
def open_browser(folder):
  """A new page in a browser of its own.

  Args:
    folder: folder for the browser's files.

  Yields:
    The page.
  """
  # The browser reads messages from its file 3, and writes to its file 4.
  (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
  command = [EXECUTABLE, '--headless', '--no-sandbox', '--disable-gpu',
             '--no-first-run', '--hide-scrollbars', '--disable-dev-shm-usage',
             f'--user-data-dir={folder}/browser', '--remote-debugging-pipe']
  with subprocess.Popen(
      [sys.executable, '-c', _START, str(theirs_in), str(theirs_out), *command],
      pass_fds=(theirs_in, theirs_out),
      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL) as process:
    for descriptor in (theirs_in, theirs_out):
      os.close(descriptor)
    buffer = bytearray()

    def send(message):
      os.write(ours_out, json.dumps(message).encode() + b'\0')

    def receive():
      while b'\0' not in buffer:
        assert select.select([ours_in], [], [], _TIMEOUT)[0], 'browser is mute'
        part = os.read(ours_in, 1 << 20)
        assert part, 'browser has ended'
        buffer.extend(part)
      message, _, rest = bytes(buffer).partition(b'\0')
      buffer[:] = rest
      return json.loads(message)

    try:
      yield Page(send, receive)
    finally:
      process.terminate()
      process.wait(_TIMEOUT)
      for descriptor in (ours_in, ours_out):
        os.close(descriptor)
