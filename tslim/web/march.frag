// One pixel of a field: the renderer's mathematics (kernels/march.py, density.py, composite.py, appearance.py,
// decode.py, space.py) in one pass. Names are theirs.
//
// Planes and lines are layers of texture arrays, four components of one kind in a texel, in the order of ranks: layer l
// holds components 4 l .. 4 l + 3. The rank is a loop bound, so fewer ranks are fewer reads.
//
// Defined before this text: SPACE (0 box, 1 ndc, 2 contracted), SOFTPLUS, MLP (0: spherical harmonics), WIDTH4 and
// INPUTS4 (units and inputs of the decoder, in fours), K_FEATURES, K_DIRS, N_WEIGHTS, WEIGHTS_IN_TEXTURE, BASIS_AT,
// STEPS_AT (-1 where planes hold the numbers themselves), B1_AT, W2_AT, B2_AT, W3_AT, B3_AT.

precision highp float;
precision highp int;
precision highp sampler2DArray;
precision highp usampler3D;

const int BATCH = 16;
const float NEVER = 1e6;

uniform mat3 uRotation;
uniform vec3 uOrigin;
uniform vec4 uIntrinsics;  // fx, fy, cx, cy in pixels, from the top left
uniform float uHeight;
uniform vec3 uBackground;
uniform int uChannel;  // 0 colour, 1 depth, 2 opacity
uniform vec2 uDepthScale;  // the depth shown in the middle of the ramp; how steep the ramp is

uniform vec3 uBoxMin, uBoxMax;
uniform vec3 uTexelsPerUnit;
uniform vec3 uGrid;
uniform vec4 uCube;  // centre and half a side of what a contracted space leaves as it is
uniform float uNear, uFar, uStep;
uniform int uSteps;
uniform float uDeltaScaled, uStop, uThreshold, uSpan;

uniform bool uHasOccupancy;
uniform ivec3 uCells;
uniform vec3 uCellOrigin, uCellsPerUnit;
uniform usampler3D uOccupied;  // a bit for each of 2 x 2 x 2 cells
uniform usampler3D uFree;  // by block of 8 x 8 x 8 cells: 0 if any is occupied, else how many blocks around are empty

uniform int uDensityLayers, uAppearanceLayers;
uniform vec4 uDensityMask, uAppearanceMask;  // of the last layer: 1 for components below the rank
uniform vec2 uDensityScale;
uniform vec4 uFeatureScale[7], uFeatureShift[7];
uniform sampler2DArray uDensityXY, uDensityXZ, uDensityYZ, uDensityZ, uDensityY, uDensityX;
uniform sampler2DArray uAppearanceXY, uAppearanceXZ, uAppearanceYZ, uAppearanceZ, uAppearanceY, uAppearanceX;

#if WEIGHTS_IN_TEXTURE
uniform highp sampler2D uWeights;
vec4 weight(int i) { return texelFetch(uWeights, ivec2(i & 255, i >> 8), 0); }
#else
layout(std140) uniform Weights { vec4 uWeights[N_WEIGHTS]; };
vec4 weight(int i) { return uWeights[i]; }
#endif

out vec4 result;

// -- the ray and its samples ------------------------------------------------------------------------------------------

vec3 o, d;  // as it is marched
int k;  // the next step
float t, along;  // of the sample that next_sample found
vec3 x;  // where that lies, in field coordinates
float t0;
int last;
vec3 q0, dq;

bool occupied(ivec3 c) {
  uint bits = texelFetch(uOccupied, c >> 1, 0).r;
  int bit = (c.x & 1) | (c.y & 1) << 1 | (c.z & 1) << 2;
  return ((bits >> bit) & 1u) == 1u;
}

int free_blocks(ivec3 c) { return int(texelFetch(uFree, c >> 3, 0).r); }

// The first cell edge beyond `free` blocks around the block of cell c, in the direction of each axis.
vec3 edge_of(ivec3 c, int free, bvec3 forwards) {
  ivec3 block = c >> 3;
  return vec3(mix(vec3((block - free + 1) << 3), vec3((block + free) << 3), vec3(forwards)));
}

#if SPACE < 2
void begin() {
  vec3 v = mix(d, vec3(1e-12), lessThan(abs(d), vec3(1e-12)));
  vec3 a = (uBoxMin - o) / v, b = (uBoxMax - o) / v;
  vec3 low = min(a, b), high = max(a, b);
  float t_in = max(low.x, max(low.y, low.z)), t_out = min(high.x, min(high.y, high.z));
  t0 = min(max(t_in, uNear), uFar);
  float t_end = min(t_out, uFar);
  k = 0;
  last = t_in <= t_out && t0 <= t_end ? min(int((t_end - t0) / uStep), uSteps - 1) : -1;
  q0 = (o + d * t0 - uCellOrigin) * uCellsPerUnit;
  dq = d * uStep * uCellsPerUnit;
}

bool next_sample() {
  while (k <= last) {
    float here = float(k);
    k += 1;
    if (uHasOccupancy) {
      ivec3 c = clamp(ivec3(floor(q0 + dq * here)), ivec3(0), uCells - 1);
      int free = free_blocks(c);
      if (free > 0) {
        vec3 edge = edge_of(c, free, greaterThan(dq, vec3(0.0)));
        float leave = 1e6;
        for (int a = 0; a < 3; ++a) if (abs(dq[a]) > 1e-9) leave = min(leave, (edge[a] - q0[a]) / dq[a]);
        k = max(k, int(leave));
        continue;
      }
      if (!occupied(c)) continue;
    }
    t = t0 + uStep * here;
    along = t;
    x = o + d * t;
    return true;
  }
  return false;
}
#else
int largest_axis(vec3 q) {
  vec3 a = abs(q);
  int j = a.y > a.x ? 1 : 0;
  return a.z > max(a.x, a.y) ? 2 : j;
}

float largest(vec3 q) { return max(abs(q.x), max(abs(q.y), abs(q.z))); }

vec3 contract(vec3 q) {
  float size = largest(q);
  if (size <= 1.0) return q;
  float shrink = 1.0 / size;
  int j = largest_axis(q);
  vec3 y = q * shrink;
  y[j] = q[j] > 0.0 ? 2.0 - shrink : shrink - 2.0;
  return y;
}

// How contract(q) moves as q moves along d; the rate at which 1 / max|q| falls.
vec3 motion(vec3 q, out float rate) {
  float size = largest(q);
  rate = 0.0;
  if (size <= 1.0) return d;
  float shrink = 1.0 / size;
  int j = largest_axis(q);
  rate = (q[j] > 0.0 ? d[j] : -d[j]) * shrink;
  vec3 velocity = (d - q * rate) * shrink;
  velocity[j] = (q[j] > 0.0 ? rate : -rate) * shrink;
  return velocity;
}

float advance(vec3 velocity, float rate, float distance) {
  float dt = distance / length(velocity);
  float left = 1.0 - rate * dt;
  return left > 1e-4 ? dt / left : 1e30;
}

// Where along an axis the straight piece that y = contract(q) lies in ends, in the given direction.
float end_of_piece(vec3 q, vec3 y, bool forwards, int axis) {
  if (largest(q) > 1.0 && axis == largest_axis(q)) {
    float beyond = forwards ? 1.0 : 0.0;
    return y[axis] > 0.0 ? 1.0 + beyond : beyond - 2.0;
  }
  return forwards ? 1.0 : -1.0;
}

float t_next;

void begin() {
  t_next = uNear;
  k = 0;
}

bool next_sample() {
  while (k < uSteps && t_next < uFar) {
    vec3 q = o + d * t_next;
    float rate;
    vec3 velocity = motion(q, rate);
    vec3 y = contract(q);
    bool hit = true;
    int ahead = 1;
    if (uHasOccupancy) {
      ivec3 c = clamp(ivec3(floor((y - uCellOrigin) * uCellsPerUnit)), ivec3(0), uCells - 1);
      int free = free_blocks(c);
      hit = free == 0 && occupied(c);
      if (free > 0) {
        vec3 a_step = velocity * (uStep / length(velocity));
        vec3 edges = uCellOrigin + edge_of(c, free, greaterThan(a_step, vec3(0.0))) / uCellsPerUnit;
        float leave = 1e6;
        for (int a = 0; a < 3; ++a) {
          bool forwards = a_step[a] > 0.0;
          float end = end_of_piece(q, y, forwards, a);
          float edge = forwards ? min(edges[a], end) : max(edges[a], end);
          if (abs(a_step[a]) > 1e-9) leave = min(leave, (edge - y[a]) / a_step[a]);
        }
        ahead = max(ahead, int(leave));
      }
    }
    if (hit) {
      t = t_next;
      along = uStep * float(k);
      x = y;
    }
    t_next += advance(velocity, rate, uStep * float(ahead));
    k += ahead;
    if (hit) return true;
  }
  return false;
}
#endif

// -- density ----------------------------------------------------------------------------------------------------------

vec3 on_grid(vec3 p) { return clamp((p - uBoxMin) * uTexelsPerUnit, vec3(0.0), uGrid - 1.0); }

vec4 plane_of(sampler2DArray planes, vec2 uv, int layer) { return textureLod(planes, vec3(uv, float(layer)), 0.0); }

vec4 line_of(sampler2DArray lines, float w, int layer) { return textureLod(lines, vec3(w, 0.5, float(layer)), 0.0); }

float density_feature(vec3 at) {
  vec3 s = (at + 0.5) / uGrid;
  float total = 0.0;
  for (int l = 0; l < uDensityLayers; ++l) {
    vec4 xy = plane_of(uDensityXY, s.xy, l) * line_of(uDensityZ, s.z, l);
    vec4 xz = plane_of(uDensityXZ, s.xz, l) * line_of(uDensityY, s.y, l);
    vec4 yz = plane_of(uDensityYZ, s.yz, l) * line_of(uDensityX, s.x, l);
#if STEPS_AT >= 0
    int i = STEPS_AT + 3 * l;
    vec4 sum = xy * weight(i) + xz * weight(i + 1) + yz * weight(i + 2);
#else
    vec4 sum = xy + xz + yz;
#endif
    total += dot(sum, l == uDensityLayers - 1 ? uDensityMask : vec4(1.0));
  }
  return total;
}

float density(vec3 at) {
  float z = uDensityScale.x * density_feature(at) + uDensityScale.y;
#if SOFTPLUS
  if (z < -8.0) {
    float e = exp(z);
    return e * (1.0 - 0.5 * e);
  }
  return z < 16.0 ? max(z, 0.0) + log(1.0 + exp(-abs(z))) : z;
#else
  return max(z, 0.0);
#endif
}

float exp_minus(float y) { return y > 0.01 ? exp(-y) : 1.0 - y * (1.0 - y * (0.5 - y * (1.0 / 6.0))); }

// -- appearance and decoder -------------------------------------------------------------------------------------------

vec4 batch[BATCH];  // kept samples: where they lie on the grid, and their weights
vec4 features[7];  // 27 of them: the sum of weight times products, times the basis

void add_products(vec4 p, int row) {
  for (int j = 0; j < 7; ++j)
    features[j] += weight(row + j) * p.x + weight(row + 7 + j) * p.y + weight(row + 14 + j) * p.z
        + weight(row + 21 + j) * p.w;
}

void add_appearance(int n) {
  for (int l = 0; l < uAppearanceLayers; ++l) {
    vec4 xy = vec4(0.0), xz = vec4(0.0), yz = vec4(0.0);
    for (int i = 0; i < n; ++i) {
      vec3 s = (batch[i].xyz + 0.5) / uGrid;
      float w = batch[i].w;
      xy += plane_of(uAppearanceXY, s.xy, l) * line_of(uAppearanceZ, s.z, l) * w;
      xz += plane_of(uAppearanceXZ, s.xz, l) * line_of(uAppearanceY, s.y, l) * w;
      yz += plane_of(uAppearanceYZ, s.yz, l) * line_of(uAppearanceX, s.x, l) * w;
    }
    vec4 mask = l == uAppearanceLayers - 1 ? uAppearanceMask : vec4(1.0);
    int row = BASIS_AT + 84 * l;
    add_products(xy * mask, row);
    add_products(xz * mask, row + 28);
    add_products(yz * mask, row + 56);
  }
}

#if MLP
vec4 block(int at, vec4 v) {
  return weight(at) * v.x + weight(at + 1) * v.y + weight(at + 2) * v.z + weight(at + 3) * v.w;
}

// Inputs in fours: features (the 28th is nothing), direction, and for each frequency their sines and cosines.
vec3 decode(vec3 direction) {
  vec4 inputs[INPUTS4];
  vec4 hidden[WIDTH4];
  int n = 0;
  for (int j = 0; j < 7; ++j) inputs[n++] = features[j];
  inputs[n++] = vec4(direction, 0.0);
  for (int j = 0; j < 7; ++j) {
    vec4 s = sin(features[j]), c = cos(features[j]);
    for (int f = 0; f < K_FEATURES; ++f) {
      inputs[8 + 14 * f + j] = s;
      inputs[15 + 14 * f + j] = c;
      vec4 twice = 2.0 * s * c;
      c = 1.0 - 2.0 * s * s;
      s = twice;
    }
  }
  n = 8 + 14 * K_FEATURES;
  vec4 s = vec4(sin(direction), 0.0), c = vec4(cos(direction), 0.0);
  for (int f = 0; f < K_DIRS; ++f) {
    inputs[n++] = s;
    inputs[n++] = c;
    vec4 twice = 2.0 * s * c;
    c = 1.0 - 2.0 * s * s;
    s = twice;
  }
  for (int j = 0; j < WIDTH4; ++j) {
    vec4 sum = weight(B1_AT + j);
    for (int i = 0; i < INPUTS4; ++i) sum += block(4 * (j * INPUTS4 + i), inputs[i]);
    hidden[j] = max(sum, 0.0);
  }
  vec4 colour = weight(B3_AT);
  for (int j = 0; j < WIDTH4; ++j) {
    vec4 sum = weight(B2_AT + j);
    for (int i = 0; i < WIDTH4; ++i) sum += block(W2_AT + 4 * (j * WIDTH4 + i), hidden[i]);
    colour += block(W3_AT + 4 * j, max(sum, 0.0));
  }
  return 1.0 / (1.0 + exp(-colour.xyz));
}
#else
float feature(int i) { return features[i >> 2][i & 3]; }

vec3 decode(vec3 v) {
  float basis[9] = float[9](
      0.28209479177387814, -0.4886025119029199 * v.y, 0.4886025119029199 * v.z, -0.4886025119029199 * v.x,
      1.0925484305920792 * v.x * v.y, -1.0925484305920792 * v.y * v.z,
      0.31539156525252005 * (2.0 * v.z * v.z - v.x * v.x - v.y * v.y), -1.0925484305920792 * v.x * v.z,
      0.5462742152960396 * (v.x * v.x - v.y * v.y));
  vec3 total = vec3(0.0);
  for (int b = 0; b < 9; ++b) total += basis[b] * vec3(feature(b), feature(9 + b), feature(18 + b));
  return 1.0 / (1.0 + exp(-total));
}
#endif

vec3 colour_of_group(float kept, vec3 direction) {
  for (int j = 0; j < 7; ++j) features[j] = features[j] / kept * uFeatureScale[j] + uFeatureShift[j];
  return decode(direction);
}

// -- the pixel --------------------------------------------------------------------------------------------------------

vec3 ramp(float v) {
  const vec3 colours[5] = vec3[5](
      vec3(0.27, 0.00, 0.33), vec3(0.23, 0.32, 0.55), vec3(0.13, 0.57, 0.55), vec3(0.37, 0.79, 0.38),
      vec3(0.99, 0.91, 0.14));
  float at = clamp(v, 0.0, 1.0) * 4.0;
  int low = min(int(at), 3);
  return mix(colours[low], colours[low + 1], at - float(low));
}

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, uHeight - gl_FragCoord.y);
  vec2 slope = (pixel - uIntrinsics.zw) / uIntrinsics.xy;
  vec3 direction = normalize(uRotation * vec3(slope.x, -slope.y, -1.0));
  float ndc_length = 1.0, skipped = 0.0;
#if SPACE == 0
  o = uOrigin;
  d = direction;
#elif SPACE == 1
  o = vec3(NEVER);
  d = vec3(0.0, 0.0, 1.0);
  if (direction.z < -1e-6) {
    skipped = max((uCube.w + uOrigin.z) / -direction.z, 0.0);
    vec3 p = uOrigin + direction * skipped;
    float far_from = max(-p.z, uCube.w);
    o = vec3(2.0 * p.xy / far_from, 1.0 - 2.0 * uCube.w / far_from);
    vec3 across = vec3(2.0 * direction.xy / -direction.z, 1.0) - o;
    ndc_length = length(across);
    d = across / ndc_length;
  }
#else
  o = (uOrigin - uCube.xyz) / uCube.w;
  d = direction / uCube.w;
#endif
  begin();

  for (int j = 0; j < 7; ++j) features[j] = vec4(0.0);
  vec3 colour = vec3(0.0);
  float light = 1.0, opacity = 0.0, depth = 0.0;
  float kept = 0.0, total = 0.0, group_along = 0.0;
  bool open = false, ended = false, pending = false;
  vec4 first = vec4(0.0);  // of the next group
  float first_along = 0.0;
  while (!ended || pending) {
    // Samples until a group is complete, so that all pixels decode together.
    int n = 0;
    bool complete = false;
    if (pending) {
      batch[n++] = first;
      kept = total = first.w;
      group_along = first_along;
      pending = false;
    }
    while (n < BATCH && !ended) {
      if (!next_sample()) {
        ended = true;
        break;
      }
      vec3 at = on_grid(x);
      float through = exp_minus(uDeltaScaled * density(at));
      float w = light * (1.0 - through);
      light *= through;
      opacity += w;
      depth += w * t;
      ended = light < uStop;
      if (w > uThreshold) {
        if (open && along - group_along > uSpan) {
          pending = true;
          first = vec4(at, w);
          first_along = along;
          complete = true;
          break;
        }
        if (!open) {
          open = true;
          group_along = along;
        }
        batch[n++] = vec4(at, w);
        kept += w;
        total += w;
      } else if (uSpan > 0.0) {
        total += w;  // before the first group, too: it takes that one's colour
      }
    }
    if (uChannel == 0 && open) {
      add_appearance(n);
      if (complete || ended) {
        colour += total * colour_of_group(kept, direction);
        for (int j = 0; j < 7; ++j) features[j] = vec4(0.0);
      }
    }
  }

  if (uChannel == 0) {
    result = vec4(colour + uBackground * (1.0 - opacity), 1.0);
  } else if (uChannel == 2) {
    result = vec4(vec3(opacity), 1.0);
  } else {
    float mean = depth / max(opacity, 1e-6);
#if SPACE == 1
    float part = min(mean / ndc_length, 0.9999);
    float beyond = -(uOrigin.z + direction.z * skipped);
    mean = skipped + beyond / -direction.z * part / (1.0 - part);
#endif
    float close = 1.0 / (1.0 + pow(max(mean, 1e-6) / uDepthScale.x, uDepthScale.y));
    result = vec4(opacity > 1e-6 ? mix(uBackground, ramp(close), min(opacity, 1.0)) : uBackground, 1.0);
  }
}
