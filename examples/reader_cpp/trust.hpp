// The trust file (docs/trust.md): its schema, and the rule by which one version follows another.
#pragma once

#include <algorithm>
#include <string>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "json.hpp"
#include "keys.hpp"
#include "manifest.hpp"

namespace trust {

using json::Malformed;
using json::Value;

inline constexpr char kSchema[] = "flight-cache-trust/1";

struct Unsigned : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Key {
  std::string role, raw, not_after;  // not_after: empty if it has none
};

struct Version {
  std::int64_t version = 0, root_threshold = 0, signing_threshold = 0;
  std::vector<Key> keys;
  std::vector<std::string> revoked;
  std::string not_after, payload;  // payload: what the root keys sign
};

inline bool is_signature(const std::string& text) {
  return text.size() == 128 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

inline std::string unhex(const std::string& text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) out += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
  return out;
}

inline const manifest::Check& shape() {
  using namespace manifest;
  static const Check made = [] {
    const Check digest = text_like(is_digest), moment = text_like(is_moment), few = whole(1, 64);
    const Check strong = text_like([](const std::string& text) { return is_digest(text) && !keys::is_weak(unhex(text)); });
    const Check key = record({{"role", one_of({"root", "signing"})}, {"key", strong}, {"name?", text_like(is_name)},
                              {"not_after?", moment}});
    const Check recovery = record({{"above", whole(0, kMaxWhole)}, {"counter", whole(0, kMaxWhole)}});
    const Check content = record({{"version", whole(1, kMaxWhole)},
                                  {"keys", list_of(key, 2, 64)},
                                  {"thresholds", record({{"root", few}, {"signing", few}})},
                                  {"revoked", list_of(digest, 0, 512)},
                                  {"not_after?", moment},
                                  {"recovery?", recovery}});
    const Check signature = record({{"fingerprint", digest}, {"signature", text_like(is_signature)}});
    return record({{"schema", one_of({kSchema})},
                   {"versions", list_of(record({{"signed", content}, {"signatures", list_of(signature, 0, 64)}}), 1, 256)}});
  }();
  return made;
}

template <typename Compare>
void require_order(const std::vector<Value>& list, Compare before) {
  for (std::size_t i = 1; i < list.size(); ++i)
    if (before(list[i], list[i - 1])) throw Malformed("a list is not in its order");
}

inline const std::string& text(const Value& value, const char* key) { return value.object.at(key).text; }

inline Version version_of(const Value& value) {
  Version out;
  out.version = value.object.at("version").number;
  out.root_threshold = value.object.at("thresholds").object.at("root").number;
  out.signing_threshold = value.object.at("thresholds").object.at("signing").number;
  if (value.object.count("not_after")) out.not_after = text(value, "not_after");
  const auto& listed = value.object.at("keys").list;
  const auto pair = [](const char* first, const char* second) {
    return [=](const Value& a, const Value& b) {
      return std::make_pair(text(a, first), text(a, second)) < std::make_pair(text(b, first), text(b, second));
    };
  };
  require_order(listed, pair("role", "key"));
  std::set<std::string> prints, trusted;
  std::int64_t roots = 0;
  for (const Value& key : listed) {
    out.keys.push_back({text(key, "role"), unhex(text(key, "key")), key.object.count("not_after") ? text(key, "not_after") : ""});
    if (!prints.insert(keys::fingerprint(out.keys.back().raw)).second) throw Malformed("a key is there twice");
    for (const std::string& each : keys::digests(out.keys.back().raw)) trusted.insert(each);
    if (out.keys.back().role == "root" && !out.keys.back().not_after.empty()) throw Malformed("a root key with not_after");
    roots += out.keys.back().role == "root";
  }
  const auto& revoked = value.object.at("revoked").list;
  require_order(revoked, [](const Value& a, const Value& b) { return a.text < b.text; });
  for (const Value& each : revoked) {
    if (trusted.count(each.text)) throw Malformed("a key is trusted and revoked");
    out.revoked.push_back(each.text);
  }
  if (out.root_threshold > roots || out.signing_threshold > static_cast<std::int64_t>(listed.size()) - roots)
    throw Malformed("a threshold is greater than the number of keys");
  if (value.object.count("recovery")) {
    const auto& recovery = value.object.at("recovery").object;
    if (recovery.at("counter").number > recovery.at("above").number) throw Malformed("recovery");
  }
  std::string canonical;
  json::write(canonical, value);
  out.payload = std::string(kSchema) + "\n" + canonical;
  return out;
}

// Enough root keys of `by` signed `signed`; each counts once.
inline void require_signed(const Version& signed_version, const std::vector<Value>& signatures, const Version& by) {
  std::set<std::string> good;
  for (const Value& each : signatures)
    for (const Key& key : by.keys)
      if (key.role == "root" && keys::fingerprint(key.raw) == text(each, "fingerprint") &&
          keys::verifies(key.raw, unhex(text(each, "signature")), signed_version.payload))
        good.insert(key.raw);
  if (static_cast<std::int64_t>(good.size()) < by.root_threshold) throw Unsigned("not signed by enough root keys");
}

// The newest version of a trust file whose whole chain holds; throws Malformed or Unsigned.
inline Version read(const std::string& bytes) {
  if (bytes.size() > manifest::kMaxBytes) throw Malformed("too large");
  const Value root = json::Parser(bytes).document();
  if (!shape()(root)) throw Malformed("breaks the schema");
  std::string canonical;
  json::write(canonical, root);
  if (canonical != bytes) throw Malformed("not in canonical form");
  std::vector<Version> versions;
  for (const Value& each : root.object.at("versions").list) {
    versions.push_back(version_of(each.object.at("signed")));
    require_order(each.object.at("signatures").list, [](const Value& a, const Value& b) {
      return std::make_pair(text(a, "fingerprint"), text(a, "signature")) <
             std::make_pair(text(b, "fingerprint"), text(b, "signature"));
    });
    if (versions.size() > 1 && versions.back().version != versions[versions.size() - 2].version + 1)
      throw Malformed("versions are not consecutive");
  }
  for (std::size_t i = 0; i < versions.size(); ++i) {
    const auto& signatures = root.object.at("versions").list[i].object.at("signatures").list;
    if (i > 0) require_signed(versions[i], signatures, versions[i - 1]);
    require_signed(versions[i], signatures, versions[i]);
  }
  return versions.back();
}

}  // namespace trust
