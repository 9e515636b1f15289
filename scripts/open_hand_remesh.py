"""Even, well-shaped triangles of a wished size on an implicit surface (isotropic remeshing; Botsch & Kobbelt 2004).

Edges are split, collapsed and flipped, vertices slide in the surface; topology never changes. Deterministic plain
Python: a mesh of ten thousand vertices takes some seconds. Used by `build_open_hand.py` only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


class EditableMesh:
    """A closed triangle mesh that can be edited edge by edge."""

    def __init__(self, vertices: Array, faces: Array) -> None:
        self.points = [np.asarray(v, dtype=np.float64) for v in vertices]
        self.faces: dict[int, tuple[int, int, int]] = {i: (int(a), int(b), int(c)) for i, (a, b, c) in enumerate(faces)}
        self.next_face = len(self.faces)
        self.around: list[set[int]] = [set() for _ in self.points]
        for i, face in self.faces.items():
            for v in face:
                self.around[v].add(i)

    def edges(self) -> list[tuple[int, int]]:
        return [(a, b) for f in self.faces.values() for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0])) if a < b]

    def neighbours(self, vertex: int) -> set[int]:
        return {v for i in self.around[vertex] for v in self.faces[i]} - {vertex}

    def length(self, a: int, b: int) -> float:
        d = self.points[a] - self.points[b]
        return float(np.sqrt(d @ d))

    def normal(self, face: tuple[int, int, int]) -> Array:
        a, b, c = (self.points[v] for v in face)
        u, w = b - a, c - a
        return np.array([u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]])

    def remove(self, index: int) -> None:
        for v in self.faces.pop(index):
            self.around[v].discard(index)

    def add(self, face: tuple[int, int, int]) -> None:
        self.faces[self.next_face] = face
        for v in face:
            self.around[v].add(self.next_face)
        self.next_face += 1

    def split(self, a: int, b: int) -> None:
        middle = len(self.points)
        self.points.append((self.points[a] + self.points[b]) / 2)
        self.around.append(set())
        for index in sorted(self.around[a] & self.around[b]):
            face = self.faces[index]
            self.remove(index)
            self.add(tuple(middle if v == b else v for v in face))  # type: ignore[arg-type]
            self.add(tuple(middle if v == a else v for v in face))  # type: ignore[arg-type]

    def collapse(self, a: int, b: int) -> bool:
        """Merge b into a at their middle, unless that pinches the surface or turns a triangle over."""
        if len(self.neighbours(a) & self.neighbours(b)) != 2:
            return False
        middle = (self.points[a] + self.points[b]) / 2
        shared = self.around[a] & self.around[b]
        moved = sorted((self.around[a] | self.around[b]) - shared)
        before = [self.normal(self.faces[i]) for i in moved]
        old = self.points[a], self.points[b]
        self.points[a] = self.points[b] = middle
        for i, n0 in zip(moved, before, strict=True):
            n1 = self.normal(self.faces[i])
            if n0 @ n1 < 0.5 * np.sqrt((n0 @ n0) * (n1 @ n1)) + 1e-12:
                self.points[a], self.points[b] = old
                return False
        for i in sorted(shared):
            self.remove(i)
        for i in sorted(self.around[b]):
            face = self.faces[i]
            self.remove(i)
            self.add(tuple(a if v == b else v for v in face))  # type: ignore[arg-type]
        return True

    def flip(self, a: int, b: int) -> bool:
        """Turn the edge a-b when the valences of its four vertices come nearer to six by it."""
        first, second = sorted(self.around[a] & self.around[b])
        if not _has_edge(self.faces[first], a, b):
            first, second = second, first
        c = next(v for v in self.faces[first] if v not in (a, b))
        d = next(v for v in self.faces[second] if v not in (a, b))
        valence = [len(self.around[v]) - 6 for v in (a, b, c, d)]
        gain = sum(abs(v) for v in valence) - sum(abs(v + k) for v, k in zip(valence, (-1, -1, 1, 1), strict=True))
        if gain <= 0 or d in self.neighbours(c):
            return False
        n = self.normal(self.faces[first]) + self.normal(self.faces[second])
        new = (a, d, c), (d, b, c)
        for face in new:
            m = self.normal(face)
            if n @ m < 0.6 * np.sqrt((n @ n) * (m @ m)) + 1e-12:
                return False
        self.remove(first)
        self.remove(second)
        for face in new:
            self.add(face)
        return True

    def arrays(self) -> tuple[Array, Array]:
        """Vertices and faces without gaps in the numbering."""
        faces = np.array([self.faces[i] for i in sorted(self.faces)])
        used, faces = np.unique(faces, return_inverse=True)
        return np.stack([self.points[v] for v in used]), faces.reshape(-1, 3)


def _has_edge(face: tuple[int, int, int], a: int, b: int) -> bool:
    return (a, b) in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0]))


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Area-weighted unit normals."""
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normals)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def relax(vertices: Array, faces: Array, weight: Array) -> Array:
    """Each vertex moved within its tangent plane towards the weighted mean of its neighbours."""
    edges = np.unique(np.sort(np.concatenate([faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)]]), axis=1), axis=0)
    total, mean = np.zeros(len(vertices)), np.zeros_like(vertices)
    for a, b in ((0, 1), (1, 0)):
        np.add.at(total, edges[:, a], weight[edges[:, b]])
        np.add.at(mean, edges[:, a], weight[edges[:, b], None] * vertices[edges[:, b]])
    step = mean / total[:, None] - vertices
    normals = vertex_normals(vertices, faces)
    return vertices + 0.6 * (step - (step * normals).sum(1, keepdims=True) * normals)


def remesh(
    vertices: Array,
    faces: Array,
    edge_length: Callable[[Array], Array],
    project: Callable[[Array], Array],
    rounds: int = 8,
) -> tuple[Array, Array]:
    """A mesh of the same surface with edges of about `edge_length(points)`; `project` keeps vertices on the surface."""
    for _ in range(rounds):
        mesh = EditableMesh(vertices, faces)
        wish = list(edge_length(vertices))
        for a, b in mesh.edges():
            if mesh.length(a, b) > 4 / 3 * (wish[a] + wish[b]) / 2:
                mesh.split(a, b)
                wish.append((wish[a] + wish[b]) / 2)
        short = sorted((mesh.length(a, b) / (wish[a] + wish[b]), a, b) for a, b in mesh.edges())
        for _ratio, a, b in short:
            alive = mesh.around[a] and mesh.around[b] and mesh.around[a] & mesh.around[b]
            if alive and mesh.length(a, b) < 4 / 5 * (wish[a] + wish[b]) / 2:
                mesh.collapse(a, b)
        for a, b in mesh.edges():
            if len(mesh.around[a] & mesh.around[b]) == 2:
                mesh.flip(a, b)
        vertices, faces = mesh.arrays()
        for _ in range(3):
            vertices = project(relax(vertices, faces, edge_length(vertices) ** 2))
    return vertices, faces
