// How good a picture a frame's time allows while something moves: a ladder of qualities, and what frames have cost.

const LADDER = [
  { share: 1, scale: 1, exact: true },
  { share: 1, scale: 1, exact: false },
  { share: 1, scale: 0.7, exact: false },
  { share: 0.5, scale: 0.7, exact: false },
  { share: 0.5, scale: 0.5, exact: false },
  { share: 0.25, scale: 0.5, exact: false },
  { share: 0.25, scale: 0.35, exact: false },
  { share: 0.25, scale: 0.25, exact: false },
  { share: 0.125, scale: 0.18, exact: false },
  { share: 0.125, scale: 0.12, exact: false },
];

/** What a level costs beside others, roughly: a rank is about half of what a sample costs. */
const effort = ({ share, scale, exact }) => scale ** 2 * (0.5 + 0.5 * share) * (exact ? 2 : 1);

class Pace {
  /** `budget`: milliseconds that a frame may take while something moves. Starts with the coarsest, which is quick. */
  constructor(budget) {
    this.budget = budget;
    this.level = LADDER.length - 1;
  }

  /** {rank, scale, exact} of the next moving frame; `fixed`: the rank is the user's choice. */
  choice(rank, fixed) {
    const { share, scale, exact } = LADDER[this.level];
    return { rank: fixed ? rank : Math.max(1, Math.round(rank * share)), scale, exact };
  }

  /** Notes what a frame has cost. What is within the budget stays; else the finest level that should be takes over. */
  took(ms) {
    if (ms > 0.5 * this.budget && ms <= this.budget) return;
    const unit = ms / effort(LADDER[this.level]);
    const fits = LADDER.findIndex((level) => unit * effort(level) <= 0.8 * this.budget);
    const wanted = fits < 0 ? LADDER.length - 1 : fits;
    // Down at once; up by steps, since small pictures cost more than their share.
    this.level = wanted > this.level ? wanted : Math.max(wanted, this.level - 2);
  }
}
