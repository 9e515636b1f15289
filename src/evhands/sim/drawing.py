"""From random numbers to a world: subject, camera, motion, skin, things, light and background of one clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evhands.hand.model import ShapedHand, load_hand
from evhands.sim.appearance import Look, Surface, draw_background, draw_forearm, draw_lights, draw_skin, draw_tone
from evhands.sim.config import ClipConfig
from evhands.sim.motion import Motion, View, draw_motion, rotation_matrix
from evhands.sim.render import vertex_normals
from evhands.sim.scenery import Backdrop, Thing, draw_lamp, draw_thing, slide
from evhands.sim.two_hands import draw_two_motions
from evhands.sim.world import Actor, World, subject_shape, unit
from evhands.types import Camera, Side


def draw_world(config: ClipConfig, seed: int, index: int) -> World:
    """World `index` of the series `seed`: always the same one for the same (config, seed, index)."""
    rng = np.random.default_rng((seed, index))
    subject = int(rng.integers(*config.subjects))
    camera = _draw_camera(config, rng)
    tone = draw_tone(rng)
    lights = draw_lights(rng)
    sides: dict[str, tuple[Side, ...]] = {"right": ("right",), "left": ("left",), "both": ("right", "left")}
    chosen: tuple[Side, ...] = sides.get(config.side) or (("right", "left")[int(rng.integers(2))],)  # type: ignore[assignment]
    shaped = _hand_of(subject)
    rest = _surface(shaped)
    normals = vertex_normals(rest.vertices, rest.faces)
    actors, faces, owner, albedo, count = [], [], [], [], 0
    tags: dict[str, Any] = {"subject": subject, "side": config.side if config.side == "both" else chosen[0]}
    motions = _draw_motions(config, camera, rest, chosen, rng)
    for k, (side, motion) in enumerate(zip(chosen, motions, strict=True)):
        actor = _draw_actor(config, side, subject, shaped, rest, motion, rng)
        skin, skin_tags = draw_skin(rest, normals, actor.arm, tone, config.scene.jewellery, rng)
        tags |= skin_tags
        own = np.concatenate([rest.faces, actor.arm.faces + len(rest.vertices)])
        faces.append((own[:, ::-1] if side == "left" else own) + count)
        owner.append(np.repeat(np.array([k, -2], np.int8), [len(rest.faces), len(actor.arm.faces)]))
        albedo.append(skin)
        count += len(skin)
        actors.append(actor)
    things: tuple[Thing, ...] = ()
    if config.scene.thing and rng.random() < config.scene.thing:
        thing = draw_thing(camera.K, config.size, _depths(actors, config), config.duration_us * 1e-6, rng)
        things, tags["thing"] = (thing,), len(thing.vertices)
        faces.append(thing.faces + count)
        owner.append(np.full(len(thing.faces), -3, np.int8))
        albedo.append(thing.albedo)
    look, gloss_tags = _draw_look(config, np.concatenate(albedo), lights, rng)
    backdrop, background_tags = _draw_backdrop(config, camera, rng)
    lamp = draw_lamp(config.scene.light, rng)
    tags |= {"orientation": config.orientation, "light": lamp.kind, **gloss_tags, **background_tags}
    return World(
        config, camera, tuple(actors), things, np.ascontiguousarray(np.concatenate(faces), np.int32),
        np.concatenate(owner), look, backdrop, lamp, tags,
    )  # fmt: skip


def _hand_of(subject: int) -> ShapedHand:
    with torch.no_grad():
        return load_hand("open").with_shape(torch.from_numpy(subject_shape(subject)))


def _surface(hand: ShapedHand) -> Surface:
    model = hand.model
    joints = hand.joints16.numpy()
    vertices = hand.vertices.numpy() - joints[0]
    return Surface(vertices, model.faces.numpy().astype(np.int32), joints - joints[0], vertices[model.tip_vertices])


def _draw_camera(config: ClipConfig, rng: np.random.Generator) -> Camera:
    width, height = config.size
    focal = config.focal_px * (1 + rng.uniform(-1, 1) * config.focal_spread)
    cx, cy = (np.array([width, height]) - 1) / 2 + rng.uniform(-0.03, 0.03, 2) * config.size
    K = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1.0]])
    if not config.distortion:
        return Camera(K, config.size)
    k1 = rng.uniform(-1, 1) * config.distortion
    return Camera(K, config.size, np.array([k1, -0.3 * k1 * abs(k1), *rng.normal(0, 5e-4, 2), 0.0]))


def _draw_motions(
    config: ClipConfig, camera: Camera, rest: Surface, sides: tuple[Side, ...], rng: np.random.Generator
) -> list[Motion]:
    """A motion a hand, told of a right hand (the left one is seen in a mirror)."""
    centre = rest.vertices.mean(0) - rest.joints16[0]
    view = View(K=camera.K, size=config.size, orientation=config.orientation, depth_m=config.depth_m, centre_m=centre)
    duration_s = config.duration_us * 1e-6
    if len(sides) == 2:
        return list(draw_two_motions(config.motion, view, duration_s, rng))
    motion = draw_motion(config.motion, view, duration_s, rng)
    return [_away(motion) if config.empty else motion]


def _away(motion: Motion) -> Motion:
    """The same motion 20 m to the right, where no camera of ours looks."""
    return replace(motion, path=replace(motion.path, values=motion.path.values + np.array([20.0, 0.0, 0.0])))


def _draw_actor(
    config: ClipConfig, side: Side, subject: int, shaped: ShapedHand, rest: Surface, motion: Motion,
    rng: np.random.Generator,
) -> Actor:  # fmt: skip
    arm = draw_forearm(rest, rng)
    bend = np.radians(np.clip(rng.normal(0, 13, 2), -28, 28))
    direction = rotation_matrix(np.array([0.0, bend[0], bend[1]]))[:, 0]
    over_time = motion.rotation(np.linspace(0, config.duration_us * 1e-6, 9)) @ direction
    return Actor(side, subject, shaped, motion, arm, direction, unit(over_time.mean(0)))


def _draw_look(
    config: ClipConfig, albedo: np.ndarray, lights: np.ndarray, rng: np.random.Generator
) -> tuple[Look, dict[str, float | str]]:
    gloss, ambient, occlusion = rng.uniform(*config.scene.gloss), rng.uniform(0.15, 0.5), rng.uniform(0.2, 0.7)
    if config.scene.light == "highlight":  # one strong lamp, little else, and skin that shines in it
        lights = lights.copy()
        lights[0] *= rng.uniform(2.5, 5.0) / max(float(np.linalg.norm(lights[0])), 1e-6)
        gloss = rng.uniform(0.15, 0.5)
    look = Look(albedo, lights, float(ambient), float(occlusion), float(gloss))
    return look, {"gloss": round(float(gloss), 3)}


def _draw_backdrop(
    config: ClipConfig, camera: Camera, rng: np.random.Generator
) -> tuple[Backdrop, dict[str, float | str]]:
    moving = config.scene.moving_background + config.scene.camera_turn > 0
    shift, turn = slide(config.scene, config.duration_us * 1e-6, rng) if moving else (None, None)
    larger = 1.8 if shift is not None or turn is not None else 1.0
    width, height = (round(n * larger) for n in config.size)
    picture, tags = draw_background((width, height), 0.9 if larger > 1 else config.scene.clutter, rng)
    motion = "slides" if shift is not None else "turns" if turn is not None else "still"
    return Backdrop(picture, camera.K, config.size, shift, turn), {**tags, "backdrop": motion}


def _depths(actors: list[Actor], config: ClipConfig) -> tuple[float, float]:
    """Nearest and farthest joint over the clip in metres."""
    t_s = np.linspace(0, config.duration_us * 1e-6, 12)
    z = np.concatenate([a.joints(t_s)[..., 2].ravel() for a in actors])
    return float(z.min()), float(z.max())
