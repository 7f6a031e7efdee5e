"The Space without Gradio and without a browser: app.py is run with components that remember, and every button is pressed as it is wired."
import math
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent


class Part:
    "A component: what is in it, and what happens when it is pressed or changed."
    def __init__(self, value=None, *, choices=None, **about):
        self.value = value
        self.about = about | dict(choices=choices)
        self.events = {}

    def __enter__(self): return self
    def __exit__(self, *error): pass
    def launch(self, **how): raise AssertionError('a Space that is imported does not begin')
    def __getattr__(self, event):
        if event not in ('click', 'change', 'load'): raise AttributeError(event)
        return lambda do, inputs=(), outputs=(), **how: self.events.setdefault(event, []).append((do, inputs, outputs))


class Dropdown(Part):
    def __init__(self, choices, value=None, **about):
        assert value in [choice[1] if isinstance(choice, tuple) else choice for choice in choices]
        super().__init__(value, choices=choices, **about)


def listed(parts): return parts if isinstance(parts, (list, tuple)) else [parts]


def happen(part, event):
    "What Gradio does: the function gets what is in the inputs, and what it returns is put into the outputs."
    for do, inputs, outputs in part.events[event]:
        made, outputs = do(*[o.value for o in listed(inputs)]), listed(outputs)
        made = [made] if len(outputs) == 1 else made
        assert len(made) == len(outputs), f'{do.__name__} gives {len(made)} values for {len(outputs)} boxes'
        for box, value in zip(outputs, made): box.value = value


@pytest.fixture(scope='module')
def space():
    gradio = ModuleType('gradio')
    gradio.Error = type('Error', (Exception,), {})
    for name in ('Blocks', 'Markdown', 'Row', 'Column', 'Number', 'Textbox', 'Image', 'Button', 'HighlightedText', 'Video'): setattr(gradio, name, type(name, (Part,), {}))
    gradio.Dropdown = Dropdown
    before, sys.modules['gradio'] = sys.modules.get('gradio'), gradio
    try: app = SimpleNamespace(**runpy.run_path(str(ROOT/'space/app.py')))
    finally: sys.modules.pop('gradio') if before is None else sys.modules.update(gradio=before)
    return app


def test_another_think_turns_failure_into_success(space):
    "Guard: a handler was called with what it no longer takes, every press said Error, and no test pressed."
    happen(space.app, 'load')
    first = space.instruction.value
    assert first and space.picture.value.shape == (space.PICTURE,)*2 + (3,) and not space.box.value
    happen(space.ask, 'click')
    own = space.box.value
    action = space.action.value
    film = Path(space.video.value)
    assert space.end.value.startswith('failure'), 'the policy solves this scene by itself: python tools/check_space.py --scenes lists others'
    assert 'false' in [truth for _, truth in space.shown.value] and ''.join(text for text, _ in space.shown.value) == own
    assert film.read_bytes()[4:8] == b'ftyp'
    happen(space.honest, 'click')
    assert space.box.value != own and space.action.value == action, 'nothing is done yet'
    happen(space.again, 'click')
    assert space.end.value == 'success' and space.action.value != action and {truth for _, truth in space.shown.value} == {'true', None}
    assert Path(space.video.value) != film
    space.seed.value += 1
    happen(space.seed, 'change')
    assert space.instruction.value != first and not space.box.value and not space.end.value and space.video.value is None


def test_every_button_and_choice_is_wired_to_what_the_test_pressed(space):
    parts = {name: part for name, part in vars(space).items() if isinstance(part, Part)}
    wired = {(name, event) for name, part in parts.items() for event in part.events}
    assert wired - {('choice', 'change')} == {('app', 'load'), ('ask', 'click'), ('again', 'click'), ('honest', 'click'), *((name, 'change') for name in ('task', 'level', 'seed'))}
    assert {name for name, part in parts.items() if type(part).__name__ == 'Button'} == {'ask', 'again', 'honest'}


def test_a_scene_that_there_is_not_is_said_in_one_line(space):
    before, space.seed.value = space.seed.value, 10**12
    with pytest.raises(Exception, match='belongs to no split') as said: happen(space.ask, 'click')
    space.seed.value = before
    assert type(said.value).__name__ == 'Error'


def test_the_card_counts_the_parameters_that_the_weights_have(space):
    "Guard: page and card said 4.2 million, the weights hold 4.7."
    from safetensors import safe_open
    with safe_open(ROOT/'thinkact_nb/standin/model.safetensors', 'np') as weights: count = sum(math.prod(weights.get_slice(n).get_shape()) for n in weights.keys())
    card = (ROOT/'space/README.md').read_text(encoding='utf-8')
    assert f'{count/1e6:.1f}-million-parameter' in space.who() and f'{count/1e6:.1f} million parameters' in card
    assert re.search(r'(?m)^app_file: app.py$', card)
