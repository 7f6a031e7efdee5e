"""Does looking again help a policy? Turns are taught by SFT, and open and closed loop are judged on the same scenes and mishaps.

    python benchmark/loop.py

Stopped and called again it goes on; what it found goes to thinkact_nb/tables/loop.json, which turns/turns reads. `--episodes 4 --steps 2 --test 6` tries it in some minutes.

The plan, written before the first run. Two trainings by SFT, each of as many steps, from the same base, on as many scenes: one on demonstrations of one
look, as those of benchmark/arms.py, one on turns (a quarter of its episodes with no mishap, a quarter each with one of three). Four arms, each greedy:

- open: learned one look, has one look.
- again: learned one look, is asked at each turn anew, with no memory; it cannot say that it is done.
- once: learned turns, has one look: what the other training alone gives.
- closed: learned turns, has turns.

Scenes: the test split of L0, without a mishap and with each. The question is `closed` against `open` under each mishap, exact McNemar, Holm over the
three; the bar is 30 points. `closed` against `again` says what is owed to memory and training and not to a second look; without a mishap, `closed` must not
lose to `open`. All else is description.

Added on 28 November, when the second run below had been judged: whether a repair follows its think. In 306 scenes, each under one of the three mishaps in
turn, the thinks of `closed` are exchanged from the second look on: none, that of the first look, the expert's. Description, each against its own thinks.

Amended on 28 November, after the first run (507 steps each: `closed` won under each mishap, and lost to `open` without one, since 507 steps are nine passes
over 900 looks and three over 2,797 turns). Turns are now taught for 1,521 steps (`--turn-steps`), as many passes over their rows as looks have; all else
stays, and the first run's table is kept beside the new one's. Non-inferiority without a mishap: the lower end of the paired interval of `closed` against
`open` is above -3 points. (A first try at that was ended by early stopping at step 500, where three looks at 36 scenes had brought nothing while the rate
was still high. Its judging was stopped, and turns are taught to the last step.)

Amended on 30 November, for another base and language, before any run with them: 340 steps on looks, as benchmark/sft.py has them for 900 demonstrations,
and three times as many on turns. `closed` against `again` is judged on the same 918 scenes and mishaps: it says what is left of the gain if the policy
that learned one look is asked again as often."""
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
import pandas as pd
import torch
import tyro
from sft import taught
from thinkact_nb.env import PROFILES, SPLITS, hardware
from thinkact_nb.evaluate import Comparison, compare, compare_all, rates
from thinkact_nb.files import seal, whole
from thinkact_nb.loop import DISTURBANCES, TURNS
from thinkact_nb.model import fingerprint, free_memory, load_model
from thinkact_nb.pool import SimPool
from thinkact_nb.reward import with_mishaps
from thinkact_nb.sft import train_sft
from thinkact_nb.store import ADAPTER, SHIPPED_TURNS, Store, TURNS_FILE, table_file
from thinkact_nb.tasks import spread
from thinkact_nb.turns import TURN_THINKS, make_turns, other_thinks, run_loop
from thinkact_nb.family import load_processor

ARMS = dict(open=("looks", 1, False), again=("looks", TURNS, False), once=("turns", 1, True), closed=("turns", TURNS, True))  # training, turns, memory
SAID = ["grounding", "turns", "tokens", "seconds", "mishaps", "noticed", "truly", "alarms"]


@dataclass
class Settings:
    "How much."
    episodes: int = 900    # demonstrated
    steps: int = 340       # of SFT on looks
    turn_steps: int = 1020 # of SFT on turns
    rate: float = 5e-3     # of SFT
    test: int = 306        # scenes for each mishap and for none
    validation: int = 36   # scenes that SFT is tried on
    workers: int = 0       # of the simulator
    arms: tuple[str, ...] = tuple(ARMS)  # judged
    run: Path = Path("runs/results/loop")
    out: Path = table_file("loop.json")
    thinks: bool = True    # also exchange the thinks of `closed`, as turns/turns tells
    ship: bool = False     # put the adapter that learned turns into the package, for `thinkact act --turns 4`


def learned(settings, pool, kind):
    "The run folder of a training, `looks` or `turns`, made if it is not there. Looks are those of benchmark/sft.py, in its folder beside this one."
    if kind == "looks": return taught(settings.run.parent / "sft", settings.episodes, settings.steps, settings.rate)[0]
    profile = replace(PROFILES["tiny"], demonstrations=settings.episodes, sft_learning_rate=settings.rate)
    store = Store(settings.run / f"turns-{settings.episodes}-{settings.turn_steps}", profile, seed=0)
    if not store.has("data"):
        make_turns(settings.episodes, store.begin("data"), pool, seed=SPLITS["train"], image_size=profile.image_size)
        store.push("data")
    if not (store.run / "sft" / "log.json").exists():
        train_sft(store, resume=True, steps=settings.turn_steps, every=200, validation=settings.validation, patience=0)
    return store


def ship(store):
    "The adapter that learned turns comes with the package."
    SHIPPED_TURNS.mkdir(exist_ok=True)
    for file in (store.run / "sft" / name for name in (ADAPTER, "adapter_model.safetensors", "log.json")): shutil.copy(file, SHIPPED_TURNS)
    shutil.copy(store.run / "data" / TURNS_FILE, SHIPPED_TURNS)
    seal(SHIPPED_TURNS, base=fingerprint(store.profile))


def judged(settings, pool, profile, adapter, name, who=lambda policy: policy, **asked):
    "What `run_loop`, asked so, gives for a policy, or for `who` is made of it, in the test scenes; kept in the run folder under a name."
    weights = fingerprint(profile, str(adapter))
    file = settings.run / "episodes" / f"{name}-{settings.test}-{weights[:12]}.parquet"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        policy = load_model(profile, str(adapter)), load_processor(profile)
        rows = run_loop(who(policy), spread(settings.test, seed=SPLITS["test"]), pool, profile, tokenizer=policy[1].tokenizer, **asked)
        del policy
        free_memory()
        with whole(file) as part: rows.assign(weights=weights).to_parquet(part, index=False)
    return with_mishaps(pd.read_parquet(file))


def exchanged(settings, pool, store, closed):
    "Other thinks from the second look on, each scene under one mishap, against the policy's own: `closed` has its rows under every mishap."
    names = list(DISTURBANCES)
    scenes = spread(settings.test, seed=SPLITS["test"])
    found = {}
    mishaps = [names[i % len(names)] for i in range(len(scenes))]
    own = pd.concat([closed[(closed.task == s.task) & (closed.seed == s.seed) & (closed.mishap == m)] for s, m in zip(scenes, mishaps)]).assign(arm="own")
    for kind in (kind for kind in TURN_THINKS if kind != "own"):
        other = judged(settings, pool, store.profile, store.run / "sft", f"think-{kind}", partial(other_thinks, kind=kind, profile=store.profile),
                       disturb=mishaps, arm=kind)
        found[kind] = asdict(compare(pd.concat([own, other], ignore_index=True), "own", kind))
        print("thinks", Comparison(**found[kind]), flush=True)
    return found


def main(settings: Settings):
    torch.set_num_threads(1)
    begun, found = time.process_time(), dict(asdict(settings) | dict(run=None, out=None, ship=None), machine=hardware(), mishaps={})
    with SimPool(settings.workers) as pool:
        stores = {kind: learned(settings, pool, kind) for kind in ("turns", "looks")}
        if settings.ship: ship(stores["turns"])
        tables = {}
        for mishap in ("", *DISTURBANCES):
            parts = []
            for arm in settings.arms:
                kind, turns, remember = ARMS[arm]
                parts.append(judged(settings, pool, stores[kind].profile, stores[kind].run / "sft", f"{arm}-{mishap or 'none'}",
                                    turns=turns, disturb=mishap, remember=remember, arm=arm))
            tables[mishap] = pd.concat(parts, ignore_index=True)
        if settings.thinks:
            closed = pd.concat([table[table.arm == "closed"] for table in tables.values()], ignore_index=True)
            found["thinks"] = exchanged(settings, pool, stores["turns"], closed)
    for mishap, table in tables.items():
        pairs = [asdict(compare(table, arm, "closed")) for arm in settings.arms if arm != "closed"]
        solved = table.pivot_table(index="task", columns="arm", values="success", aggfunc="sum").astype(int)
        found["mishaps"][mishap or "none"] = dict(rates=rates(table).to_dict("records"), pairs=pairs, solved_by_task=solved.to_dict("index"),
                                                  means=table.groupby("arm")[SAID].mean().round(4).to_dict("index"),
                                                  ended=table.groupby("arm").ended.value_counts().unstack(fill_value=0).to_dict("index"))
        print(mishap or "none", compare(table, "open", "closed"))
    struck = pd.concat([table for mishap, table in tables.items() if mishap], ignore_index=True)
    family = [(f"open, {mishap}", f"closed, {mishap}") for mishap in DISTURBANCES]
    answers = compare_all(struck.assign(arm=struck.arm + ", " + struck.mishap), family)
    found["control"] = asdict(compare(struck, "again", "closed"))
    found |= dict(question=answers.to_dict("records"), all_mishaps=asdict(compare(struck, "open", "closed")), minutes_of_this_call=round((time.process_time() - begun) / 60, 1))
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(settings.out, "all three mishaps:", Comparison(**found["all_mishaps"]))


if __name__ == "__main__":
    main(tyro.cli(Settings))
