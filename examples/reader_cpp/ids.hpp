// What an id of corpus.index says (docs/manifest.md, section 4a): tile, source, heading, cut, and the centre.
#pragma once
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <utility>

namespace ids {

struct Place {
  int zoom = 0;
  std::int64_t x = 0, y = 0;
  int source = 0, heading = 0, cut = 0;
  std::int64_t lat_e7 = 0, lon_e7 = 0;  // centre of what is shown, 1e-7 degree
};

// rotations: of the Manifest's descriptor_index. The cut is 0 unless that has an overlap.
inline Place place_of(std::int64_t id, int rotations) {
  if (id < 0 || rotations < 1) throw std::invalid_argument("no id of an index");
  Place place;
  std::int64_t position = id >> 14, tiles = 1;  // PMTiles: the zoom levels after each other, each along a Hilbert curve
  while (position >= tiles) {
    position -= tiles;
    tiles *= 4;
    if (++place.zoom > 24) throw std::invalid_argument("an id beyond zoom 24");
  }
  for (int bit = 0; bit < place.zoom; ++bit, position >>= 2) {
    const std::int64_t right = 1 & (position >> 1), down = 1 & (position ^ right), side = std::int64_t{1} << bit;
    if (down == 0) {
      if (right == 1) {
        place.x = side - 1 - place.x;
        place.y = side - 1 - place.y;
      }
      std::swap(place.x, place.y);
    }
    place.x |= right << bit;
    place.y |= down << bit;
  }
  place.source = static_cast<int>(id >> 6 & 0xFF);
  place.cut = static_cast<int>(id & 0x3F) / rotations;
  place.heading = static_cast<int>(id & 0x3F) % rotations;
  if (place.cut > 3) throw std::invalid_argument("no such cut");

  const double pi = std::acos(-1.0), halves = std::ldexp(2.0, place.zoom);
  const std::int64_t east = place.cut & 1, south = place.cut >> 1, around = std::int64_t{2} << place.zoom;
  const std::int64_t column = (2 * place.x + 1 + east) % around, row = 2 * place.y + 1 + south;
  const double lat = std::atan(std::sinh(pi * (1 - 2 * static_cast<double>(row) / halves))) * 180 / pi;
  place.lat_e7 = std::llround(lat * 1e7);
  place.lon_e7 = std::llround((static_cast<double>(column) / halves * 360 - 180) * 1e7);
  return place;
}

}  // namespace ids
