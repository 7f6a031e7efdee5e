"""What the stand-in is taught with: tables of simulator bodies, questions about them, and true answers.

Never an instruction of the nine tasks and never a program: the stand-in plays a *base* model. It learns to see, to name, to count, to measure
and to compare; what a robot should do with that is left to SFT."""
import itertools
import re
from dataclasses import replace
from functools import cache
import numpy as np
from thinkact_nb.language import ENGLISH, ThinkWriter, apart, counted, mention, think_of
from thinkact_nb.sim import (BINS, CLEARANCE, KNOWN, MOVABLE, NEW, OUTER, SKILLS, Body, Scene, Table, loc_text,
                             make_scene, solve)
from thinkact_nb.tasks import RELATIONS, pad_distances

LANGUAGE = ["<think>", "</think>", "<action>", "</action>", *SKILLS, *(f"<loc{i:02d}>" for i in range(BINS))]
BESIDE = .11        # metres from a thing to the room beside it
ONE_NEAREST = .04   # metres by which the nearest thing must be nearer than the next, as in the task


def colours_of(table, blocks, pads, plain):
    "Colours of blocks and pads: blocks are sometimes alike, and most pads have the colour of some block, so that colour alone finds nothing; or all differ."
    hues = table.hues(blocks + pads * plain)
    if plain:
        return hues[:blocks], hues[blocks:]
    if blocks > 2 and table.rng.random() < .25:
        hues = [hues[0]] + [hues[1]] * (blocks - 1)
    others = [c for c in table.hues(len(table.colours)) if c not in hues]
    shared = list(dict.fromkeys(table.rng.permutation(hues).tolist())) if hues else []
    painted = []
    for _ in range(pads):
        source = shared if shared and (table.rng.random() < .7 or not others) else others
        painted.append(source.pop())
    return hues, painted


def kinds_of(table, blocks):
    "Blocks alone, cylinders alone, or both: the second and third so that one is told from the other."
    draw = table.rng.random()
    if draw < .65:
        return ["block"] * blocks
    if draw < .8:
        return ["cylinder"] * blocks
    return [str(k) for k in table.rng.choice(MOVABLE, blocks)]


def table_of(seed, most, plain=False):
    "A table of one to so many bodies, or of 3 to so many whose colours all differ: a pure function of its arguments."
    rng = np.random.default_rng([seed, 77])
    table = Table(rng, KNOWN + NEW if rng.random() < .25 else KNOWN, inside=OUTER)
    n = table.number(3 if plain else 1, most)
    blocks = table.number(0, n) if n < 3 else table.number(max(1, n - 4), min(n, 4))
    hues, painted = colours_of(table, blocks, n - blocks, plain)
    kinds = kinds_of(table, blocks) + ["pad"] * len(painted)
    wall = []
    if n < 8 and not plain and rng.random() < .2:
        wall = [Body("wall", "grey", .45, round(float(rng.uniform(-.06, .06)), 4))]
    fits = lambda place: all(abs(place[1] - w.y) > .12 for w in wall)
    bodies = [table.body(*thing) for thing in zip(kinds, hues + painted, table.free_places(n, fits=fits))]
    return Scene("none", "none", seed, "", (*bodies, *wall), ())


class Asker:
    "Questions about one table with their true answers; every choice comes from one generator."
    def __init__(self, rng, bodies, kinds=None):
        self.rng, self.kinds = rng, kinds  # kinds of questions; None: all
        self.bodies = list(bodies)
        self.blocks = [b for b in bodies if b.kind in MOVABLE]
        self.pads = [b for b in bodies if b.kind == "pad"]
        names = [b.name for b in bodies]
        self.alone = [b for b in bodies if names.count(b.name) == 1]

    def say(self, kind, **words):
        return str(self.rng.choice(ENGLISH[kind])).format(**words)

    def pick(self, some, n=1):
        return [some[i] for i in self.rng.permutation(len(some))[:n]]

    def seen(self, bodies):
        return " ".join(self.say("seen", **mention(b)) for b in bodies)

    def in_order(self, bodies):
        "By colour, then by kind: who comes next follows from what was said, and a name is what the model looks things up by."
        return sorted(bodies, key=lambda b: b.rank)

    def where(self):
        asked = self.pick(self.alone, int(self.rng.integers(1, 4)))
        return f"Where is the {' and the '.join(b.name for b in asked)}?", self.seen(asked)

    def list_all(self):
        return "List what is on the table.", self.seen(self.in_order(self.bodies))

    def list_kind(self):
        kind = str(self.rng.choice(sorted({b.kind for b in self.bodies})))
        some = self.in_order([b for b in self.bodies if b.kind == kind])
        return (f"Where is the {kind}?" if len(some) == 1 else f"Where are the {kind}s?"), self.seen(some)

    def count(self):
        groups = itertools.groupby(sorted(b.name for b in self.bodies))
        counts = sorted((len(list(group)), name) for name, group in groups)
        return "How many are there?", " ".join(f"{counted(n, name)}." for n, name in reversed(counts) if n < 5)

    def room(self):
        "Where eleven centimetres beside a thing is, if that is on the table and free."
        thing, = self.pick(self.alone)
        relation = str(self.rng.choice(list(RELATIONS)))
        spot = tuple(float(v + BESIDE * d) for v, d in zip(thing.place, RELATIONS[relation]))
        if not all(lo <= v <= hi for v, (lo, hi) in zip(spot, OUTER)):
            return None
        if any(np.hypot(*np.subtract(spot, b.place)) < CLEARANCE for b in self.bodies if b is not thing):
            return None
        answer = self.say("beside", relation=relation, goal=thing.name, loc=loc_text(*spot))
        return f"Where is room {relation} the {thing.name}?", f"{self.seen([thing])} {answer}"

    def relation(self):
        one, other = self.pick(self.alone, 2)
        relation = relation_of(one, other)
        if not relation:
            return None
        return f"How does the {one.name} lie to the {other.name}?", f"{self.seen([one, other])} The {one.name} is {relation} the {other.name}."

    def __call__(self):
        "One question and its answer."
        can = dict(where=(.43, self.alone), list_all=(.22, True), list_kind=(.11, True), count=(.07, True), room=(.12, self.alone),
                   relation=(.05, len(self.alone) > 1))
        names = [name for name, (_, possible) in can.items() if possible and (self.kinds is None or name in self.kinds)]
        weights = np.array([can[name][0] for name in names])
        while True:
            name = str(self.rng.choice(names, p=weights / weights.sum()))
            asked = getattr(self, name)()
            if asked:
                return asked


ONE = {kind: forms[0] for kind, forms in ENGLISH.items()}  # the wording that demonstrations have
ONE["apart"] = "The {name} is at {loc}, {x} {ahead}, {y} {aside}."


def placed(rng, bodies):
    "The same things anywhere on the table."
    low, high = np.transpose(OUTER)
    return [replace(b, x=float(x), y=float(y)) for b, (x, y) in zip(bodies, rng.uniform(low, high, (len(bodies), 2)))]


class Reasoner(Asker):
    """Questions whose answers are computed, one step after the other: what is looked up, then subtracted, then compared or counted. One wording for
    each sentence. `told`: the places stand in the question, and no picture is needed."""
    def __init__(self, rng, bodies, told=False):
        super().__init__(rng, placed(rng, bodies) if told else bodies)
        self.told = told

    def say(self, kind, **words):
        return ONE[kind].format(**words)

    def count(self):
        return "How many are there?", counts_of(self.bodies)

    def far_from(self, other, blocks):
        away = [(apart(b, other), b) for b in self.in_order(blocks)]
        return " ".join([self.seen([other]), *(self.say("away", **far, **mention(b)) for far, b in away)])

    def far(self):
        pad, = self.pick([p for p in self.pads if p in self.alone])
        return f"How far from the {pad.name}?", self.far_from(pad, self.blocks)

    def far_one(self):
        one, other = self.pick(self.alone, 2)
        return f"How far is the {one.name} from the {other.name}?", self.far_from(other, [one])

    def extreme(self):
        pad, = self.pick([p for p in self.pads if p in self.alone])
        word = str(self.rng.choice(["nearest", "farthest"]))
        end = extreme_of(word, self.blocks, pad)
        if not end:
            return None
        preposition = "to" if word == "nearest" else "from"
        told = self.say("extreme", word=word, name=end.name, cm=apart(end, pad)["cm"])
        return f"What is {word} {preposition} the {pad.name}?", f"{self.far_from(pad, self.blocks)} {told}"

    def differs(self):
        groups = groups_of(self.blocks)
        if len(groups) != 2 or groups[1][0] != 1 or not 2 <= groups[0][0] <= 4:
            return None
        return "Which one differs?", odd_of(groups)

    def relation(self):
        one, other = self.pick(self.alone, 2)
        relation = relation_of(one, other)
        if not relation:
            return None
        evidence = self.say("apart", **apart(one, other), **mention(one))
        return f"How does the {one.name} lie to the {other.name}?", f"{self.seen([other])} {evidence} The {one.name} is {relation} the {other.name}."

    def can(self):
        "The questions that this table allows, and how often each is asked."
        named = self.blocks and all(b in self.alone for b in self.blocks)
        measured = named and [p for p in self.pads if p in self.alone]
        seen = not self.told
        can = dict(where=(.08 * seen, self.alone), list_all=(.2 * seen, True), list_kind=(.06 * seen, True), count=(.25 if seen else .06, True),
                   differs=(.3, self.differs()), room=(.06, self.alone), relation=(.06, len(self.alone) > 1),
                   far=(.1, measured), far_one=(.04, len(self.alone) > 1), extreme=(.24, measured and len(self.blocks) > 1))
        return {name: weight for name, (weight, possible) in can.items() if weight and possible}

    def ask(self, name):
        "A question of one kind and its answer; None if the table allows none."
        for _ in range(20 * (name in self.can())):
            asked = getattr(self, name)()
            if asked:
                return asked

    def __call__(self):
        "One question and its answer; None if the table allows none."
        can = self.can()
        for _ in range(20 * bool(can)):
            asked = self.ask(str(self.rng.choice(list(can), p=np.array(list(can.values())) / sum(can.values()))))
            if asked:
                question, answer = asked
                things = [self.bodies[i] for i in self.rng.permutation(len(self.bodies))]
                return (f"{self.seen(things)} {question}" if self.told else question), answer


def extreme_of(word, bodies, pad):
    "The thing nearest to a pad or farthest from it; None if two are nearly as far."
    away = pad_distances((*bodies, pad))
    ranked = sorted(away, key=away.get, reverse=word == "farthest")
    if len(ranked) > 1 and abs(away[ranked[0]] - away[ranked[1]]) < ONE_NEAREST:
        return None
    return bodies[ranked[0]]


def relation_of(one, other):
    "How one thing lies to another; None if two words would do."
    along = {relation: float(np.dot(np.subtract(one.place, other.place), way)) for relation, way in RELATIONS.items()}
    best, second = sorted(along.values())[:-3:-1]
    return max(along, key=along.get) if best - second >= .04 else None


def counts_of(bodies):
    "How many there are of each name, in the order in which a list names them."
    names = [b.name for b in sorted(bodies, key=lambda b: b.rank)]
    return " ".join(f"{counted(names.count(name), name)}." for name in dict.fromkeys(names))


def groups_of(bodies):
    "How many there are of each name, most first."
    return sorted(((len(list(group)), name) for name, group in itertools.groupby(sorted(b.name for b in bodies))), reverse=True)


def odd_of(groups):
    "Two groups, of which one is a single thing, and that this is the odd one."
    (n, crowd), (_, one) = groups
    return f"{ONE['count'].format(most=counted(n, crowd), least=counted(1, one))} {ONE['choice'].format(word='odd', name=one)}"


class Driller:
    """Arithmetic alone: things of random names at random places, in words only. A text is a list of pieces, each with whether it can be computed from
    those before it: no loss falls on the others."""
    def __init__(self, rng):
        self.rng = rng

    def things(self, n, kinds=(*MOVABLE, "pad")):
        names = [(str(k), str(c)) for k, c in itertools.product(kinds, KNOWN + NEW)]
        places = self.rng.uniform(*np.transpose(OUTER), (n, 2))
        return [Body(*names[i], float(x), float(y)) for i, (x, y) in zip(self.rng.permutation(len(names))[:n], places)]

    def seen(self, bodies):
        return " ".join(ONE["seen"].format(**mention(b)) for b in bodies)

    def far(self):
        word = str(self.rng.choice(["nearest", "farthest"]))
        pad, = self.things(1, ("pad",))
        bodies = self.things(int(self.rng.integers(1, 5)), MOVABLE)
        pieces = [(f"What is {word}?", False), (self.seen([pad]), False)]
        for body in bodies:
            before, after = ONE["away"].split("{loc}")
            pieces += [(" " + before.format(**mention(body)) + mention(body)["loc"], False), (after.format(name=body.name, **apart(body, pad)), True)]
        end = extreme_of(word, bodies, pad) if len(bodies) > 1 else None
        return pieces + [self.end(word, end.name, apart(end, pad)["cm"])] if end else pieces

    def end(self, word, name, cm):
        return " " + ONE["extreme"].format(word=word, name=name, cm=cm), True

    def compare(self):
        "Which of some numbers is the least or the most."
        bodies = self.things(int(self.rng.integers(2, 5)), MOVABLE)
        cm = self.rng.permutation(np.arange(5, 58))[:len(bodies)].tolist()
        pieces = [("Which is nearest, and which farthest?", False)]
        pieces += [(f" {n} cm to the {b.name}."[not i:], False) for i, (b, n) in enumerate(zip(bodies, cm))]
        for word, n in self.rng.permutation([("nearest", min(cm)), ("farthest", max(cm))]).tolist():
            pieces.append(self.end(word, bodies[cm.index(int(n))].name, n))
        return pieces

    def room(self):
        thing, = self.things(1)
        relation = str(self.rng.choice(list(RELATIONS)))
        spot = [float(v + BESIDE * d) for v, d in zip(thing.place, RELATIONS[relation])]
        before, after = ONE["beside"].split("{loc}")
        told = f"{self.seen([thing])} {before.format(relation=relation, goal=thing.name)}"
        return [(f"Where is room {relation} the {thing.name}?", False), (told.rstrip(), False), (" " + loc_text(*spot) + after, True)]

    def relation(self):
        one, other = self.things(2)
        relation = relation_of(one, other)
        if not relation:
            return self.relation()
        before, after = ONE["apart"].split("{loc}")
        told = f"{self.seen([other])} {before.format(**mention(one))}{mention(one)['loc']}"
        return [(f"How does the {one.name} lie to the {other.name}?", False), (told, False),
                (f"{after.format(**apart(one, other))} The {one.name} is {relation} the {other.name}.", True)]

    def differs(self):
        one, crowd, *_ = self.things(2, MOVABLE)
        n = int(self.rng.integers(2, 5))
        things = [one] + [replace(crowd, x=x, y=y) for x, y in self.rng.uniform(*np.transpose(OUTER), (n, 2)).tolist()]
        told = self.seen([things[i] for i in self.rng.permutation(n + 1)])
        return [(f"{told} Which one differs?", False), (odd_of([(n, crowd.name), (1, one.name)]), True)]

    def count(self):
        kinds = self.things(int(self.rng.integers(1, 5)))
        things = [kind for kind in kinds for _ in range(int(self.rng.choice([1, 2, 3, 4], p=[.5, .2, .2, .1])))][:7]
        things = [replace(b, x=x, y=y) for b, (x, y) in zip(things, self.rng.uniform(*np.transpose(OUTER), (len(things), 2)).tolist())]
        told = self.seen([things[i] for i in self.rng.permutation(len(things))])
        return [(f"{told} How many are there?", False), (counts_of(things), True)]

    def __call__(self):
        "The question, and the pieces of its answer."
        name = str(self.rng.choice(["far", "compare", "room", "relation", "differs", "count"], p=[.45, .18, .07, .07, .13, .1]))
        (question, _), *pieces = getattr(self, name)()
        return question, pieces


def varied_think(scene):
    "A think in any of the wordings."
    return think_of(scene, ThinkWriter(seed=scene.seed))


def repetition(rng, scenes):
    "Pieces of text in any order, to be repeated: so that every word the project uses is a word to the model."
    pieces = []
    for _ in range(int(rng.integers(2, 5))):
        scene = scenes[int(rng.integers(len(scenes)))]
        kind = rng.random()
        if kind < .3:
            pieces.append(scene.instruction)
        elif kind < .7:
            pieces.append(str(rng.choice(re.split(r"(?<=\.) ", varied_think(scene)))))
        elif kind < .85:
            pieces.append(str(rng.choice(LANGUAGE)))
        else:
            pieces.append(f"{rng.choice(str(solve(scene)).split('; '))};")
    text = str(rng.choice([" ", ""])).join(pieces)
    return f"Repeat: {text}", text


@cache
def words_scenes(tasks, n, first):
    "Scenes whose words, not images, are read: for the tokenizer and for repetitions."
    return [make_scene(task, level, first + s) for task in tasks for level in ("L0", "L3") for s in range(n)]
