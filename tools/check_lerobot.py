"""Does the `lerobot` library read what `to_lerobot` writes? `make test-lerobot` runs both halves, each in its own environment:
  check_lerobot.py write FOLDER   makes nine demonstrations, exports them, and notes what the simulator saw
  check_lerobot.py read FOLDER    opens the export with LeRobotDataset and compares"""
import json
import sys
from pathlib import Path

import numpy as np


def write(folder):
    from thinkact_nb.data import make_dataset
    from thinkact_nb.share import to_lerobot
    from thinkact_nb.sim import make_scene, parse_output
    from thinkact_nb.pool import SimPool, record_episode
    rows = make_dataset(9, folder/'demonstrations', SimPool(0))
    to_lerobot(rows, folder/'export', SimPool(0))
    seen = [record_episode((make_scene(r['task'], r['level'], r['seed']), parse_output(r['output']).program, 128)) for r in rows]
    np.savez(folder/'seen.npz', **{f'{name}{i}': episode[name] for i, episode in enumerate(seen) for name in ('frames', 'state', 'action')})
    (folder/'said.json').write_text(json.dumps([dict(task=r['instruction'], think=parse_output(r['output']).think) for r in rows]), encoding='utf-8')


def read(folder):
    import importlib.metadata
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    camera = 'observation.images.front'
    dataset = LeRobotDataset('local/tabletop', root=folder/'export', video_backend='pyav')
    seen, said = np.load(folder/'seen.npz'), json.loads((folder/'said.json').read_text(encoding='utf-8'))
    print(f"lerobot {importlib.metadata.version('lerobot')}, format {dataset.meta.info['codebase_version']}: {dataset.num_episodes} episodes, {dataset.num_frames} frames, {dataset.fps} per second")
    assert dataset.num_episodes == len(said) and set(dataset.meta.stats) >= {camera, 'observation.state', 'action'}
    print(f"{'episode':>7} {'frames':>6}  {'worst PSNR (dB)':>15}  task")
    first = 0
    for e, words in enumerate(said):
        frames, state, action = (seen[f'{name}{e}'] for name in ('frames', 'state', 'action'))
        assert dataset.meta.episodes[e]['length'] == len(frames) and dataset.meta.episodes[e]['dataset_from_index'] == first
        worst = 99.
        for k in (0, 1, len(frames)//2, len(frames) - 1):
            row = dataset[first + k]
            assert (row['episode_index'], row['frame_index']) == (e, k) and row['task'] == words['task'] and row['think'] == words['think']
            assert abs(row['timestamp'].item() - k/dataset.fps) < 1e-4
            assert np.array_equal(row['observation.state'].numpy(), state[k]) and np.array_equal(row['action'].numpy(), action[k])
            error = ((row[camera].numpy().transpose(1, 2, 0) - frames[k]/255)**2).mean()
            worst = min(worst, 10*np.log10(1/error))
        assert worst > 28, f'episode {e}: a frame is not the one that was recorded'
        print(f'{e:7} {len(frames):6}  {worst:15.1f}  {words["task"]}')
        first += len(frames)
    ahead = LeRobotDataset('local/tabletop', root=folder/'export', video_backend='pyav', delta_timestamps={'action': [k/dataset.fps for k in range(8)]})
    batch = next(iter(torch.utils.data.DataLoader(ahead, batch_size=4, shuffle=True)))
    assert batch['action'].shape == (4, 8, 8) and batch[camera].shape == (4, 3, 128, 128)
    print('a batch:', {k: tuple(v.shape) for k, v in batch.items() if hasattr(v, 'shape') and v.ndim > 1})


if __name__ == '__main__': dict(write=write, read=read)[sys.argv[1]](Path(sys.argv[2]))
