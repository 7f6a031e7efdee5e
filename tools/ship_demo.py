"""Put a demo run into the package: what a run without training may use, and what the front page counts.

    make demo && .venv/bin/python tools/ship_demo.py

Adapters, logs, the episode table and how it was made; no path of this machine goes along. `tools/front.py` then writes the front page's numbers."""
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
import tyro
from thinkact_nb.files import read_seal, seal
from thinkact_nb.store import SHIPPED

FILES = dict(sft=("adapter_config.json", "adapter_model.safetensors", "log.json"),
             **{"rl/ppo": ("adapter_config.json", "adapter_model.safetensors", "value_head.safetensors", "log.json"),
                "rl/rft": ("adapter_config.json", "adapter_model.safetensors", "log.json")})


@dataclass
class Settings:
    "Which run."
    run: Path = Path("runs/demo")


def main(settings: Settings):
    shutil.rmtree(SHIPPED, ignore_errors=True)
    for stage, files in FILES.items():
        folder = SHIPPED / stage
        folder.mkdir(parents=True)
        for name in files:
            shutil.copy(settings.run / stage / name, folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = "thinkact_nb/standin"
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        seal(folder, files, base=read_seal(settings.run / stage)["base"])
    (SHIPPED / "eval").mkdir()
    shutil.copy(settings.run / "eval" / "episodes.parquet", SHIPPED / "eval")
    shutil.copy(settings.run / "config.json", SHIPPED)


if __name__ == "__main__":
    main(tyro.cli(Settings))
