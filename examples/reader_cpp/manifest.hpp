// The Manifest (docs/manifest.md, 2 to 4): its schema, manifest_hash and coverage_sha256.
#pragma once

#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "json.hpp"

namespace manifest {

using json::Malformed;
using json::Value;

inline constexpr char kSchema1[] = "flight-cache-manifest/1", kSchema2[] = "flight-cache-manifest/2";
inline constexpr std::size_t kMaxBytes = 1 << 20;
inline constexpr std::size_t kMaxFiles = 512;
inline constexpr std::int64_t kMaxWhole = (std::int64_t{1} << 53) - 1;

struct UnknownSchema : Malformed {
  using Malformed::Malformed;
};

struct File {
  std::string path, sha256;
  std::int64_t bytes = 0;
};

class Sha256 {
 public:
  Sha256() : context(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr); }
  void update(const void* data, std::size_t size) { EVP_DigestUpdate(context.get(), data, size); }
  std::string hex() {
    unsigned char digest[32];
    EVP_DigestFinal_ex(context.get(), digest, nullptr);
    return to_hex(digest, sizeof digest);
  }
  static std::string to_hex(const unsigned char* data, std::size_t size) {
    std::string out;
    for (std::size_t i = 0; i < size; ++i) {
      out += "0123456789abcdef"[data[i] >> 4];
      out += "0123456789abcdef"[data[i] & 15];
    }
    return out;
  }
  static std::string of(const std::string& bytes) {
    Sha256 digest;
    digest.update(bytes.data(), bytes.size());
    return digest.hex();
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context;
};

// --- types of values (2.2) ---

using Check = std::function<bool(const Value&)>;

inline bool all_in(const std::string& text, char low, char high) {
  return std::all_of(text.begin(), text.end(), [=](char c) { return c >= low && c <= high; });
}
inline bool digits(const std::string& text) { return !text.empty() && all_in(text, '0', '9'); }
inline std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}
inline bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

inline Check text_like(std::function<bool(const std::string&)> good) {
  return [good](const Value& value) { return value.kind == Value::Text && good(value.text); };
}
inline Check whole(std::int64_t low, std::int64_t high) {
  return [=](const Value& v) { return v.kind == Value::Integer && v.number >= low && v.number <= high; };
}
inline Check list_of(Check item, std::size_t least, std::size_t most) {
  return [=](const Value& value) {
    return value.kind == Value::List && value.list.size() >= least && value.list.size() <= most &&
           std::all_of(value.list.begin(), value.list.end(), item);
  };
}
// A key that ends in '?' may be absent.
inline Check record(std::vector<std::pair<std::string, Check>> shape) {
  return [shape](const Value& value) {
    if (value.kind != Value::Object) return false;
    std::size_t known = 0;
    for (const auto& [key, check] : shape) {
      const bool optional = key.back() == '?';
      const auto found = value.object.find(optional ? key.substr(0, key.size() - 1) : key);
      if (found == value.object.end()) {
        if (!optional) return false;
        continue;
      }
      if (!check(found->second)) return false;
      ++known;
    }
    return known == value.object.size();
  };
}
inline Check table(Check key, Check item, std::size_t most) {
  return [=](const Value& value) {
    if (value.kind != Value::Object || value.object.size() > most) return false;
    for (const auto& [name, part] : value.object) {
      Value as_text;
      as_text.kind = Value::Text;
      as_text.text = name;
      if (!key(as_text) || !item(part)) return false;
    }
    return true;
  };
}

inline bool is_digest(const std::string& text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}
inline bool is_word(const std::string& text) {
  return !text.empty() && text.size() <= 255 && all_in(text, '!', '~');
}
inline bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= 255 && all_in(text, ' ', '~') && text.front() != ' ' && text.back() != ' ';
}
inline bool is_decimal(std::string text) {
  if (!text.empty() && text[0] == '-') text.erase(0, 1);
  const std::size_t dot = text.find('.');
  const std::string before = text.substr(0, dot);
  if (!digits(before) || before.size() > 18 || (before.size() > 1 && before[0] == '0')) return false;
  if (dot == std::string::npos) return true;
  const std::string after = text.substr(dot + 1);
  return digits(after) && after.size() <= 18;
}
inline bool is_date(const std::string& text) {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-') return false;
  const std::string year = text.substr(0, 4), month = text.substr(5, 2), day = text.substr(8, 2);
  if (!digits(year) || !digits(month) || !digits(day)) return false;
  return month >= "01" && month <= "12" && day >= "01" && day <= "31";
}
inline bool is_moment(const std::string& text) {
  if (text.size() != 20 || !is_date(text.substr(0, 10)) || text[10] != 'T' || text[13] != ':' || text[16] != ':' ||
      text[19] != 'Z')
    return false;
  const std::string hour = text.substr(11, 2), minute = text.substr(14, 2), second = text.substr(17, 2);
  return digits(hour) && digits(minute) && digits(second) && hour <= "23" && minute <= "59" && second <= "59";
}
inline bool is_segment(const std::string& segment) {
  const auto plain = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '+';
  };
  return !segment.empty() && segment.size() <= 201 && plain(segment[0]) &&
         std::all_of(segment.begin(), segment.end(), [&](char c) {
           return plain(c) || c == '.' || c == '=' || c == ',' || c == '@' || c == '-';
         });
}
inline bool is_path(const std::string& path) {
  std::size_t segments = 0;
  for (std::size_t at = 0;; ++segments) {
    const std::size_t slash = path.find('/', at);
    if (!is_segment(path.substr(at, slash == std::string::npos ? slash : slash - at))) return false;
    if (slash == std::string::npos) break;
    at = slash + 1;
  }
  const std::string folded = lower(path);
  return segments + 1 <= 8 && !ends_with(folded, ".sha256") && folded.rfind("manifest.json", 0) != 0;
}
// The parser has made sure of UTF-8.
inline bool is_text(const std::string& text) {
  std::size_t count = 0;
  for (std::size_t at = 0; at < text.size(); ++count) {
    const unsigned char first = static_cast<unsigned char>(text[at]);
    const std::size_t size = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    std::uint32_t code = size == 1 ? first : first & (0x7Fu >> size);
    for (std::size_t i = 1; i < size; ++i) code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
    if (code < 0x20 || (code >= 0x7F && code <= 0x9F) || code == 0x061C || code == 0x200E ||
        code == 0x200F || (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069))
      return false;
    at += size;
  }
  return count <= 4096;
}
inline bool is_zoom(const std::string& text) {
  return digits(text) && text.size() <= 2 && (text.size() == 1 || text[0] != '0') && std::stoi(text) <= 24;
}

// --- the schema (2.3) ---

inline Check one_of(std::set<std::string> words) {
  return text_like([words](const std::string& text) { return words.count(text) > 0; });
}
inline Check shape_of(int version) {
  return [version] {
    const Check digest = text_like(is_digest), word = text_like(is_word), name = text_like(is_name),
                text = text_like(is_text), path = text_like(is_path), decimal = text_like(is_decimal);
    const Check count = whole(0, kMaxWhole), longitude = whole(-1800000000, 1800000000),
                latitude = whole(-900000000, 900000000), pixels = whole(1, 65536);
    const Check schema = one_of({version == 1 ? kSchema1 : kSchema2}), verdict = one_of({"pass", "warn", "waived"});
    const Check input = record({{"height", pixels}, {"width", pixels}, {"fit", word}});
    const Check engine =
        record({{"path", path}, {"bytes", count}, {"sha256", digest}, {"model", word}, {"role", word},
                {"onnx_sha256", digest}, {"key", digest}, {"precision", word}, {"input?", input}});
    using Shape = std::vector<std::pair<std::string, Check>>;
    Shape descriptors({{"path", path}, {"bytes", count}, {"sha256", digest}, {"kind", word},
                                {"metric", word}, {"dimension", whole(1, 1 << 20)}, {"vectors", count},
                                {"engine", path}, {"key", digest}, {"transform", word}, {"rotations", whole(1, 360)}});
    if (version == 2) descriptors.push_back({"overlap?", whole(2, 2)});
    const Check index = record(descriptors);
    const Check calibration = record({{"path", path}, {"bytes", count}, {"sha256", digest}, {"purpose", word}});
    const Check other = record({{"path", path}, {"bytes", count}, {"sha256", digest}});
    Shape point{{"lat_e7", latitude}, {"lon_e7", longitude}, {"alt_mm?", whole(-20000000, 100000000)}};
    if (version == 2) point.push_back({"alt_datum?", one_of({"ellipsoid", "amsl"})});
    Shape flight{{"flight_id?", word}, {"aircraft_id?", word}, {"takeoff_origin?", record(point)}, {"sector_class", word}};
    if (version == 2) flight.push_back({"not_after?", text_like(is_moment)});
    const Check zoom = record({{"present", count}, {"expected", count}, {"largest_hole_mm", count}});
    const Check gate =
        record({{"measured?", decimal}, {"threshold?", decimal}, {"verdict", verdict}, {"detail", text}});
    Shape document{
        {"schema", schema},
         {"build", record({{"manifest_hash", digest},
                           {"counter", whole(1, kMaxWhole)},
                           {"tool", record({{"name", word}, {"version", word}})}})},
         {"flight", record(flight)},
         {"area", record({{"bbox_e7", record({{"west", longitude}, {"south", latitude}, {"east", longitude},
                                              {"north", latitude}})},
                          {"zoom_levels", list_of(whole(0, 24), 1, 25)}})},
         {"host", record({{"backend", word}, {"runtime", word}, {"arch", word}, {"device", name},
                          {"platform", word}, {"precision", word}})},
         {"artifacts", record({{"engines", list_of(engine, 1, kMaxFiles)},
                               {"descriptor_index", index},
                               {"calibration", list_of(calibration, 0, kMaxFiles)},
                               {"other", list_of(other, 0, kMaxFiles)}})},
         {"tiles", record({{"coverage_sha256", digest}, {"count", count},
                           {"per_zoom", table(text_like(is_zoom), zoom, 64)},
                           {"sources", list_of(name, 0, 256)}, {"skipped", count},
                           {"oldest_capture?", text_like(is_date)}})},
         {"gates", table(word, gate, 64)},
         {"waivers", list_of(record({{"gate", word}, {"by", text}, {"reason", text}}), 0, 64)}};
    if (version == 2) {
      const Check focal = whole(1, std::int64_t{1} << 31), offset = whole(-(std::int64_t{1} << 31), std::int64_t{1} << 31);
      const Check distortion = record({{"model", word}, {"coefficients", list_of(decimal, 0, 32)}});
      const Check mounting = record({{"yaw_e7", longitude}, {"pitch_e7", latitude}, {"roll_e7", longitude}});
      const Check fov = whole(1, 1799999999), above = whole(1, 100000000), elevation = whole(-20000000, 100000000);
      document.push_back({"camera?", record({{"width?", pixels}, {"height?", pixels}, {"focal_x_mpx?", focal},
                                             {"focal_y_mpx?", focal}, {"principal_x_mpx?", offset},
                                             {"principal_y_mpx?", offset}, {"distortion?", distortion},
                                             {"mounting?", mounting}, {"fov_e7?", fov},
                                             {"angles_of?", one_of({"camera", "body"})}, {"height_mm?", above},
                                             {"ground_mm?", elevation}})});
      document.push_back({"accepted", list_of(record({{"what", word}, {"detail", text}}), 0, 64)});
    }
    return record(document);
  }();
}

inline const Check& shape(int version) {
  static const Check one = shape_of(1), two = shape_of(2);
  return version == 1 ? one : two;
}

class Manifest {
 public:
  // Throws UnknownSchema or Malformed.
  explicit Manifest(const std::string& bytes) {
    if (bytes.size() > kMaxBytes) throw Malformed("too large");
    root = json::Parser(bytes).document();
    if (root.kind == Value::Object) {
      const auto schema = root.object.find("schema");
      if (schema == root.object.end() || schema->second.kind != Value::Text ||
          (schema->second.text != kSchema1 && schema->second.text != kSchema2))
        throw UnknownSchema("not schema flight-cache-manifest/1 or /2");
      version = schema->second.text == kSchema1 ? 1 : 2;
    }
    if (!shape(version)(root)) throw Malformed("breaks the schema");
    gather();
    contradictions();
    std::string canonical;
    json::write(canonical, root);
    if (canonical != bytes) throw Malformed("not in canonical form");
  }

  const Value& at(std::initializer_list<const char*> keys) const {
    const Value* value = &root;
    for (const char* key : keys) value = &value->object.at(key);
    return *value;
  }
  const std::string& text(std::initializer_list<const char*> keys) const { return at(keys).text; }
  std::int64_t number(std::initializer_list<const char*> keys) const { return at(keys).number; }
  // what a person accepted when the cache was set up, as (what, detail); version 2
  std::vector<std::pair<std::string, std::string>> accepted() const {
    std::vector<std::pair<std::string, std::string>> found;
    if (version == 2)
      for (const Value& entry : at({"accepted"}).list)
        found.emplace_back(entry.object.at("what").text, entry.object.at("detail").text);
    return found;
  }
  // nullptr where an optional key is absent
  const Value* maybe(std::initializer_list<const char*> keys, const char* last) const {
    const auto& object = at(keys).object;
    const auto found = object.find(last);
    return found == object.end() ? nullptr : &found->second;
  }

  std::vector<File> files;

  bool origin_is_inside() const {
    const Value* origin = maybe({"flight"}, "takeoff_origin");
    if (!origin) return true;
    const std::int64_t lat = origin->object.at("lat_e7").number, lon = origin->object.at("lon_e7").number;
    const std::int64_t west = box("west"), east = box("east");
    if (lat < box("south") || lat > box("north")) return false;
    return west <= east ? lon >= west && lon <= east : lon >= west || lon <= east;
  }

  std::string preimage() const {
    std::vector<std::string> lines;
    const auto add = [&lines](std::string kind, const std::vector<const Value*>& fields) {
      for (const Value* value : fields) kind += " " + field(*value);
      lines.push_back(kind + "\n");
    };
    const auto pick = [](const Value& object, std::initializer_list<const char*> keys) {
      std::vector<const Value*> fields;
      for (const char* key : keys) fields.push_back(&object.object.at(key));
      return fields;
    };
    add("bbox-e7", pick(at({"area", "bbox_e7"}), {"west", "south", "east", "north"}));
    for (const Value& zoom : at({"area", "zoom_levels"}).list) add("zoom", {&zoom});
    add("sector", {&at({"flight", "sector_class"})});
    add("host", pick(at({"host"}), {"backend", "runtime", "arch", "device", "platform", "precision"}));
    add("tiles", pick(at({"tiles"}), {"coverage_sha256", "count"}));
    std::size_t number = 0;
    for (const Value& source : at({"tiles", "sources"}).list) add("source " + std::to_string(number++), {&source});
    const Value& index = at({"artifacts", "descriptor_index"});
    auto described = pick(index, {"path", "bytes", "sha256", "kind", "metric", "dimension", "vectors", "engine", "key",
                                  "transform", "rotations"});
    if (index.object.count("overlap")) described.push_back(&index.object.at("overlap"));
    add("index", described);
    for (const Value& engine : at({"artifacts", "engines"}).list) {
      auto fields = pick(engine, {"path", "bytes", "sha256", "model", "role", "onnx_sha256", "key", "precision"});
      const auto input = engine.object.find("input");
      if (input != engine.object.end())
        for (const Value* part : pick(input->second, {"height", "width", "fit"})) fields.push_back(part);
      add("engine", fields);
    }
    for (const Value& file : at({"artifacts", "calibration"}).list)
      add("calibration", pick(file, {"path", "bytes", "sha256", "purpose"}));
    if (const Value* id = maybe({"flight"}, "flight_id")) add("flight", {id});
    if (const Value* id = maybe({"flight"}, "aircraft_id")) add("aircraft", {id});
    if (const Value* origin = maybe({"flight"}, "takeoff_origin")) {
      auto fields = pick(*origin, {"lat_e7", "lon_e7"});
      const auto alt = origin->object.find("alt_mm");
      if (alt != origin->object.end()) fields.push_back(&alt->second);
      const auto datum = origin->object.find("alt_datum");
      if (datum != origin->object.end()) fields.push_back(&datum->second);
      add("origin-e7", fields);
    }
    if (const Value* until = maybe({"flight"}, "not_after")) add("not-after", {until});
    if (const Value* camera = maybe({}, "camera")) {
      if (camera->object.count("width"))
        add("camera", pick(*camera, {"width", "height", "focal_x_mpx", "focal_y_mpx", "principal_x_mpx", "principal_y_mpx"}));
      for (const auto& [key, kind] : std::map<const char*, const char*>{{"fov_e7", "camera-fov-e7"},
                                                                        {"angles_of", "camera-angles-of"},
                                                                        {"height_mm", "camera-height-mm"},
                                                                        {"ground_mm", "camera-ground-mm"}})
        if (camera->object.count(key)) add(kind, {&camera->object.at(key)});
      const auto distortion = camera->object.find("distortion"), mounting = camera->object.find("mounting");
      if (distortion != camera->object.end()) {
        auto fields = pick(distortion->second, {"model"});
        for (const Value& coefficient : distortion->second.object.at("coefficients").list) fields.push_back(&coefficient);
        add("camera-distortion", fields);
      }
      if (mounting != camera->object.end())
        add("camera-mounting-e7", pick(mounting->second, {"yaw_e7", "pitch_e7", "roll_e7"}));
    }
    std::sort(lines.begin(), lines.end());
    if (std::adjacent_find(lines.begin(), lines.end()) != lines.end()) throw Malformed("two equal lines");
    std::string out = "flight-cache-manifest-hash/" + std::to_string(version) + "\n";
    for (const std::string& line : lines) out += line;
    return out;
  }

  static std::string escape(const std::string& text) {
    std::string out;
    for (const char c : text) {
      const unsigned char byte = static_cast<unsigned char>(c);
      if (byte >= 0x21 && byte <= 0x7E && byte != '%') {
        out += c;
      } else {
        out += '%';
        out += "0123456789ABCDEF"[byte >> 4];
        out += "0123456789ABCDEF"[byte & 15];
      }
    }
    return out;
  }

 private:
  Value root;
  int version = 1;

  static std::string field(const Value& value) {
    return value.kind == Value::Integer ? std::to_string(value.number) : escape(value.text);
  }
  std::int64_t box(const char* side) const { return number({"area", "bbox_e7", side}); }

  void gather() {
    const auto add = [this](const Value& file) {
      files.push_back({file.object.at("path").text, file.object.at("sha256").text, file.object.at("bytes").number});
    };
    for (const char* kind : {"engines", "calibration", "other"}) {
      const auto& list = at({"artifacts", kind}).list;
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (i > 0 && list[i - 1].object.at("path").text >= list[i].object.at("path").text)
          throw Malformed("files out of order");
        add(list[i]);
      }
    }
    add(at({"artifacts", "descriptor_index"}));
    if (files.size() > kMaxFiles) throw Malformed("too many files");
  }

  void contradictions() const {
    std::set<std::string> folded, parents;
    for (const File& file : files)
      if (!folded.insert(lower(file.path)).second) throw Malformed("a path is listed twice");
    for (const std::string& path : folded)
      for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
        parents.insert(path.substr(0, slash));
    for (const std::string& path : folded)
      if (parents.count(path) || parents.count(path + ".sha256")) throw Malformed("a file and a directory");
    if (box("south") >= box("north") || box("west") == box("east")) throw Malformed("the box is empty");
    const auto& zooms = at({"area", "zoom_levels"}).list;
    for (std::size_t i = 1; i < zooms.size(); ++i)
      if (zooms[i - 1].number >= zooms[i].number) throw Malformed("zoom levels out of order");
    const auto& engines = at({"artifacts", "engines"}).list;
    const std::string& maker = text({"artifacts", "descriptor_index", "engine"});
    if (std::none_of(engines.begin(), engines.end(), [&](const Value& e) { return e.object.at("path").text == maker; }))
      throw Malformed("the index was made by no listed engine");
    if (at({"artifacts", "descriptor_index"}).object.count("overlap") &&
        number({"artifacts", "descriptor_index", "rotations"}) > 16)
      throw Malformed("ids have no room for the headings of every cut");
    std::int64_t present = 0;
    for (const auto& [zoom, part] : at({"tiles", "per_zoom"}).object) present += part.object.at("present").number;
    const std::int64_t tiles = number({"tiles", "count"});
    if (version == 1 && tiles != present) throw Malformed("tiles.count is not the sum");
    const auto looks = static_cast<std::int64_t>(at({"tiles", "sources"}).list.size());
    if (version == 2 && (tiles < present || (present == 0 ? tiles != 0 : (tiles - 1) / present >= looks)))
      throw Malformed("tiles.count does not fit places and sources");
    std::set<std::string> sources;
    for (const Value& source : at({"tiles", "sources"}).list)
      if (!sources.insert(source.text).second) throw Malformed("a source is there twice");
    in_order(at({"waivers"}).list, {"gate", "by", "reason"});
    if (version == 2) in_order(at({"accepted"}).list, {"what", "detail"});
    const Value* origin = maybe({"flight"}, "takeoff_origin");
    if (version == 2 && origin && origin->object.count("alt_mm") != origin->object.count("alt_datum"))
      throw Malformed("alt_mm and alt_datum only together");
    if (const Value* camera = maybe({}, "camera")) contradictions_of(camera->object);
  }

  static void contradictions_of(const std::map<std::string, Value>& camera) {
    std::size_t sizes = 0;
    for (const char* key : kLens) sizes += camera.count(key);
    if (sizes != 0 && sizes != std::size(kLens)) throw Malformed("sizes of a camera only together");
    if (sizes && camera.count("fov_e7")) throw Malformed("focal lengths and a field of view");
    if (!sizes && !camera.count("fov_e7") && camera.count("distortion")) throw Malformed("a distortion of no lens");
    if (camera.empty()) throw Malformed("a camera that declares nothing");
  }

  static constexpr const char* kLens[] = {"width",       "height",          "focal_x_mpx",
                                          "focal_y_mpx", "principal_x_mpx", "principal_y_mpx"};

  static void in_order(const std::vector<Value>& list, const std::vector<const char*>& keys) {
    const auto fields = [&keys](const Value& item) {
      std::vector<std::string> found;
      for (const char* key : keys) found.push_back(item.object.at(key).text);
      return found;
    };
    for (std::size_t i = 1; i < list.size(); ++i)
      if (fields(list[i - 1]) > fields(list[i])) throw Malformed("a list is out of order");
  }
};

// Rows of (z x y source sha256); the lines are sorted in memory, as a reader on board has no use for a million tiles.
inline std::string coverage_preimage(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::string> lines;
  std::set<std::string> tiles;
  for (const auto& row : rows) {
    const std::string tile = row.at(0) + " " + row.at(1) + " " + row.at(2) + " " + Manifest::escape(row.at(3));
    if (!tiles.insert(tile).second) throw Malformed("a tile is there twice");
    lines.push_back(tile + " " + row.at(4) + "\n");
  }
  std::sort(lines.begin(), lines.end());
  std::string out = "flight-cache-tile-coverage/1\n";
  for (const std::string& line : lines) out += line;
  return out;
}

}  // namespace manifest
