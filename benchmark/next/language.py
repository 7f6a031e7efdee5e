"""The next language of thinks: every number follows in one step from what stands before it, and each sentence has one wording.

    import language; make_dataset(900, folder, SimPool(0), lang="computed2")    # as sft.py does; --lang of the command line takes en and ko only

`superlative` says offsets before distances, and each distance again before the name that it belongs to: what is compared is found again by its number,
and the name is what follows there. (A name that stands before its number is not found: of drills, 53 % of names after 420 steps, against 95 % after 240
for a name behind it.) The place of what was chosen is said once more, right before the plan, as in `match` and `odd_one_out`: without that, after 900
demonstrations all choices were true and two of five actions took another block's place. It becomes the language of 02 when the stand-in of this folder becomes that
of the package, since all results change with it."""
import re
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from standin_tables import ONE, apart  # what the base was taught to say
from thinkact_nb.data import CLAIMS, ENGLISH, LANGUAGES, ThinkWriter, mention, think_of
from thinkact_nb.sim import COLOURS, SIZES, render_output, solve

LAST = ("put", "there", "trade", "around")  # kinds of sentences of which the last wording is taken: it names the goal after the thing
COMPUTED = {kind: forms[-1:] if kind in LAST else forms[:1] for kind, forms in ENGLISH.items()} | dict(
    away=(ONE["away"],), end=(ONE["end"],),
    each=("So each one goes onto its pad.",), trade=("So the {block} goes there first.",))
NAME = f"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SIZES)})"


class Computer(ThinkWriter):
    "Says what distances are computed from."
    def __init__(self, seed):
        super().__init__(seed, COMPUTED)
        self.pad, self.far, self.bodies = None, {}, {}

    def see(self, body, away=None):
        if body.kind == "pad":
            self.pad = body
        if away is None:
            return super().see(body)
        self.bodies[body.name] = body
        far = apart(body, self.pad)
        self.far[body.name] = far["cm"]
        super().__call__("away", **far, **mention(body))

    def __call__(self, kind, **words):
        if kind == "choice" and words["name"] in self.far:
            super().__call__("end", cm=self.far[words["name"]], **words)
            return super().see(self.bodies[words["name"]])
        super().__call__(kind, **words)


def computed(scene):
    "What is asked, and what an expert answers in this language."
    return scene.instruction, render_output(think_of(scene, Computer(scene.seed)), solve(scene))


LANGUAGES["computed2"] = computed
CLAIMS["distance"].append(re.compile(rf"(?P<n>\d+) cm to the (?P<c>{NAME})"))
CLAIMS["choice"].append(re.compile(rf"(?P<w>farthest|nearest) one: \d+ cm to the (?P<c>{NAME})"))
