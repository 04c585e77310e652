"""Slow plain NumPy decoding: no cache, one item and one sequence at a time, float64.

Written from the description of the released model, not from our JAX code, with which it shares
only the names of the parameters.
"""

import math

import numpy as np


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def layer_norm(x, p):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-12)
    return x * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(x, memory, p, heads, allowed):
    """`x [L, D]` over `memory [S, D]`, where `allowed bool [L, S]`."""
    q, k, v = linear(x, p["query"]), linear(memory, p["key"]), linear(memory, p["value"])
    size = q.shape[1] // heads
    out = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = np.where(allowed, q[:, part] @ k[:, part].T / math.sqrt(size), -np.inf)
        out.append(np.exp(log_softmax(scores)) @ v[:, part])
    return linear(np.concatenate(out, axis=1), p["out"])


class Decoder:
    """One item's next-token distributions, from the parameters of a model's `decoder`."""

    def __init__(self, params, heads, memory, memory_mask):
        def convert(tree):
            if hasattr(tree, "items"):
                return {name: convert(value) for name, value in tree.items()}
            return np.asarray(tree, np.float64)

        self.params, self.heads = convert(params), heads
        self.memory, self.seen = np.asarray(memory, np.float64), np.asarray(memory_mask, bool)
        self.known = {}

    def logits(self, ids):
        """The logits `[V]` of the token that follows `ids`."""
        key = tuple(int(token) for token in ids)
        if key not in self.known:
            self.known[key] = self.forward(list(key))
        return self.known[key]

    def forward(self, ids):
        words, length = self.params["embeddings"], len(ids)
        x = words["word"][ids] + words["position"][:length] + words["token_type"][0]
        x = layer_norm(x, words["norm"])
        stacked = self.params["layers"]["layer"]
        count = stacked["self_norm"]["scale"].shape[0]
        causal = np.tril(np.ones((length, length), bool))
        seen = np.broadcast_to(self.seen, (length, len(self.seen)))

        def pick(tree, i):
            return {n: pick(v, i) if isinstance(v, dict) else v[i] for n, v in tree.items()}

        for i in range(count):
            p = pick(stacked, i)
            x = layer_norm(x + attend(x, x, p["self_attention"], self.heads, causal),
                           p["self_norm"])
            x = layer_norm(x + attend(x, self.memory, p["cross_attention"], self.heads, seen),
                           p["cross_norm"])
            inner = gelu(linear(x, p["mlp"]["wi"]))
            x = layer_norm(x + linear(inner, p["mlp"]["wo"]), p["mlp_norm"])
        head = self.params["head"]
        y = layer_norm(gelu(linear(x[-1:], head["dense"])), head["norm"])
        return (y @ words["word"].T + head["bias"])[0]


def padded(ids, max_length, pad_id):
    return list(ids) + [pad_id] * (1 + max_length - len(ids))


def generate(decoder, choose, *, max_length, start_id, end_id, pad_id):
    """One sequence; `choose(logits, step)` picks each token."""
    ids = [start_id]
    for step in range(max_length):
        ids.append(int(choose(decoder.logits(ids), step)))
        if ids[-1] == end_id:
            break
    return padded(ids, max_length, pad_id)


def greedy(decoder, **lengths_and_ids):
    return generate(decoder, lambda logits, step: np.argmax(logits), **lengths_and_ids)


def allowed_tokens(logits, temperature, top_k, top_p):
    """The tokens that temperature, then top-k, then top-p leave, most probable first."""
    order = list(np.argsort(-logits, kind="stable"))
    if top_k:
        order = order[:top_k]
    weights = np.exp(np.array([logits[token] / temperature for token in order]))
    weights /= weights.sum()
    chosen, reached = [], 0.0
    for token, weight in zip(order, weights, strict=True):
        chosen.append(token)
        reached += weight
        if reached >= top_p:
            break
    return chosen


def sample(decoder, noise, *, temperature, top_k, top_p, **lengths_and_ids):
    """Gumbel-max sampling with the given `noise [steps, V]`."""
    def choose(logits, step):
        tokens = allowed_tokens(logits, temperature, top_k, top_p)
        return max(tokens, key=lambda token: logits[token] / temperature + noise[step][token])

    return generate(decoder, choose, **lengths_and_ids)


def beam_search(decoder, *, beams, min_length, max_length, start_id, end_id, pad_id, alpha=0.6):
    """Returns the K best hypotheses' ids and scores, best first."""
    alive = [([start_id], 0.0)] + [([start_id], -math.inf)] * (beams - 1)
    hypotheses = []  # (score, ids), in the order of recording
    for step in range(max_length):
        penalty = ((5.0 + step + 1) / 6.0) ** alpha
        candidates = []  # (score, beam, token)
        for beam, (ids, total) in enumerate(alive):
            log_probs = log_softmax(decoder.logits(ids))
            if step < min_length:
                log_probs[end_id] = -1e20
            candidates += [((total + log_probs[token]) / penalty, beam, token)
                           for token in range(len(log_probs))]
        candidates.sort(key=lambda c: -c[0])  # stable: the earlier beam and token stay in front
        best = candidates[:beams]
        alive = [(alive[beam][0] + [token], score * penalty) for score, beam, token in best]
        last = step == max_length - 1
        finished = [last or token == end_id for _, _, token in best]
        for (score, _, _), (ids, _), done in zip(best, alive, finished, strict=True):
            if done or finished[0]:
                hypotheses.append((score, ids))
        if finished[0]:
            break
    hypotheses.sort(key=lambda h: -h[0])
    top = hypotheses[:beams]
    return [padded(ids, max_length, pad_id) for _, ids in top], [score for score, _ in top]


def rank_answers(decoder, candidates, candidates_mask, keep):
    """Returns the kept candidates' indices and probabilities, best first."""
    first = log_softmax(decoder.logits([candidates[0][0]]))
    kept = sorted(range(len(candidates)), key=lambda c: -first[candidates[c][1]])[:keep]
    scores = []
    for c in kept:
        ids = [int(t) for t, real in zip(candidates[c], candidates_mask[c], strict=True) if real]
        likelihood = sum(log_softmax(decoder.logits(ids[:i]))[ids[i]] for i in range(1, len(ids)))
        scores.append(first[ids[1]] + likelihood)
    order = sorted(range(len(kept)), key=lambda i: -scores[i])
    probabilities = np.exp(log_softmax(scores))
    return [kept[i] for i in order], [probabilities[i] for i in order]
