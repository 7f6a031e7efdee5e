"""The Space in headless Chromium, as `make test-space` does: the policy fails the scene it opens on by its own think and solves it by an expert's; another
scene is chosen, its claims are coloured, the think is edited and the arm acts on it. Screenshots go to .browser/shots. It runs in .browser and starts the
app with the Python that is named. With --scenes, in .venv, it lists scenes that the Space could open on instead."""
import os
import re
import subprocess
import sys
import time
import urllib.request

from check_browser import HERE, launch

PORT = 17860
ADDRESS = f'http://127.0.0.1:{PORT}'


def begin(python, log):
    "The app as a process, when it answers."
    env = os.environ | dict(GRADIO_SERVER_PORT=str(PORT), GRADIO_ANALYTICS_ENABLED='False', LD_LIBRARY_PATH='')
    app = subprocess.Popen([python, 'space/app.py'], env=env, stdout=log, stderr=log)
    for _ in range(600):
        if app.poll() is not None: sys.exit(f'the Space stopped with status {app.returncode}: see {log.name}')
        try: urllib.request.urlopen(ADDRESS)
        except OSError: time.sleep(1)
        else: return app
    app.kill()
    sys.exit(f'the Space did not begin in ten minutes: see {log.name}')


def value(tab, name): return tab.locator(f'#{name} textarea, #{name} input').first.input_value()


def until(what, seconds=300):
    "Wait for something to be true."
    for _ in range(seconds*2):
        if found := what(): return found
        time.sleep(.5)
    raise TimeoutError


def play(tab, shots):
    "What is wrong with the Space, after a visit."
    faults = []
    tab.goto(ADDRESS)
    opens = until(lambda: tab.get_by_label('instruction').input_value())
    tab.locator('#ask').click()
    own = until(lambda: value(tab, 'end'))
    said, action = value(tab, 'think'), value(tab, 'action')
    if not own.startswith('failure'): faults.append(f'it opens on {opens!r}, and the own think ends in {own!r}')
    if not tab.locator('#claims').get_by_text('false').count(): faults.append('no false claim is shown')
    tab.screenshot(path=shots/'space-own.png', full_page=True)
    tab.locator('#honest').click()
    until(lambda: value(tab, 'think') not in ('', said))
    tab.locator('#again').click()
    until(lambda: value(tab, 'action') != action)
    if (end := value(tab, 'end')) != 'success': faults.append(f"an expert's think ends in {end!r} for {opens!r}")
    if not tab.locator('#film video').count(): faults.append('no film is shown')
    tab.screenshot(path=shots/'space-expert.png', full_page=True)

    for seed in range(30_000_001, 30_000_006):  # one that the policy writes an action about: which those are, another policy decides
        before = tab.get_by_label('instruction').input_value()
        tab.get_by_label('scene').fill(str(seed))
        tab.get_by_label('scene').press('Enter')
        until(lambda: tab.get_by_label('instruction').input_value() not in ('', before))
        until(lambda: not value(tab, 'end'))
        tab.locator('#ask').click()
        until(lambda: value(tab, 'end'))
        said, action = value(tab, 'think'), value(tab, 'action')
        if 'pick' in action: break
    else: faults.append(f'the policy wrote no action in five scenes, and {said!r} of the last')
    if not tab.locator('#claims').get_by_text('<loc').count(): faults.append('no claim is shown')
    words = re.sub(r'<loc\d\d><loc\d\d>', '<loc10><loc50>', said, count=1)
    tab.locator('#think textarea').fill(words)
    tab.locator('#again').click()
    until(lambda: value(tab, 'action') != action)
    if not tab.locator('#claims').get_by_text('<loc10><loc50>').count(): faults.append('the edited claim is not shown')
    tab.screenshot(path=shots/'space-edited.png', full_page=True)
    return faults


def scenes(task='relative', level='L0', first=30_000_000, n=40):
    "Scenes that the shipped policy of rejection sampling fails by its own think and solves by an expert's, one a line."
    import tempfile

    from thinkact_nb import evaluate
    from thinkact_nb.language import think_of
    from thinkact_nb.pool import SimPool
    from thinkact_nb.sim import make_scene
    from thinkact_nb.store import Store
    store, some = Store(tempfile.mkdtemp(), 'tiny', shipped=True), [make_scene(task, level, first + i) for i in range(n)]
    own = evaluate.act(store, 'rft', some, SimPool(0))
    other = evaluate.act(store, 'rft', some, SimPool(0), starts=[f'<think>{think_of(scene)}</think><action>' for scene in some])
    for scene, a, b in zip(some, own.itertuples(), other.itertuples()):
        if b.success and not a.success: print(f'{task} {level} {scene.seed}: {scene.instruction} {a.think}')


def main(python):
    from playwright.sync_api import sync_playwright
    shots = HERE/'shots'
    shots.mkdir(parents=True, exist_ok=True)
    with open(HERE/'space.log', 'w', encoding='utf-8') as log:
        app = begin(python, log)
        try:
            with sync_playwright() as player:
                browser = launch(player.chromium)
                try: faults = play(browser.new_page(viewport=dict(width=1200, height=1000)), shots)
                except Exception as e: faults = [f'{type(e).__name__}: {str(e).splitlines()[0] if str(e) else "nothing came"}']
                browser.close()
        finally: app.terminate()
    for fault in faults: print(f'Space: {fault}')
    print(f'the Space was visited, {len(faults)} faults; screenshots in {shots}')
    return bool(faults)


if __name__ == '__main__': sys.exit(scenes() if sys.argv[1] == '--scenes' else main(sys.argv[1]))
