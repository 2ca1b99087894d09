// Ed25519 keys and their fingerprints (docs/manifest.md, section 6).
#pragma once

#include <openssl/evp.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "manifest.hpp"

namespace keys {

using manifest::Sha256;

// The one form of a fingerprint: 64 lower-case digits. Read as the same: capitals, colons and blanks between the digits,
// `sha256:` before them. nullopt: not a fingerprint, so nobody knows whom it is about.
inline std::optional<std::string> read_fingerprint(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  std::string digits;
  const std::size_t start = std::find_if_not(text.begin(), text.end(), blank) - text.begin();
  const std::string folded = manifest::lower(text.substr(start));
  for (const char c : folded.rfind("sha256:", 0) == 0 ? folded.substr(7) : folded)
    if (c != ':' && !blank(c)) digits += c;
  if (!manifest::is_digest(digits)) return std::nullopt;
  return digits;
}

// One fingerprint, or several with commas between them; nullopt if one of them is none.
inline std::optional<std::set<std::string>> read_fingerprints(const std::string& text) {
  std::set<std::string> found;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const auto one = read_fingerprint(text.substr(at, comma - at));
    if (!one) return std::nullopt;
    found.insert(*one);
    at = comma + 1;
  }
  return found;
}

inline std::string fingerprint(const std::string& key) { return Sha256::of(key); }

// What people take for a fingerprint: that, the raw key in hex, SHA-256 of its DER and of its PEM form.
inline std::set<std::string> digests(const std::string& key) {
  const std::string der = std::string("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 12) + key;
  std::string text(4 * ((der.size() + 2) / 3) + 1, '\0');
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(&text[0]),
                                                       reinterpret_cast<const unsigned char*>(der.data()),
                                                       static_cast<int>(der.size()))));
  const std::string pem = "-----BEGIN PUBLIC KEY-----\n" + text + "\n-----END PUBLIC KEY-----\n";
  const std::string hex = Sha256::to_hex(reinterpret_cast<const unsigned char*>(key.data()), key.size());
  return {fingerprint(key), hex, Sha256::of(der), Sha256::of(pem)};
}

// Small order, or y not below 2^255 - 19 (section 6). Little-endian, without the sign bit.
inline bool is_weak(std::string key) {
  if (key.size() != 32) return true;
  key[31] = static_cast<char>(key[31] & 0x7F);
  static const char* const kSmall[] = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"};
  const std::string hex = Sha256::to_hex(reinterpret_cast<const unsigned char*>(key.data()), key.size());
  if (std::find(std::begin(kSmall), std::end(kSmall), hex) != std::end(kSmall)) return true;
  const std::string rest = hex.substr(2, 60);
  return static_cast<unsigned char>(key[0]) >= 0xED && rest == std::string(60, 'f') && hex.substr(62) == "7f";
}

inline bool verifies(const std::string& key, const std::string& signature, const std::string& data) {
  const auto* raw = reinterpret_cast<const unsigned char*>(key.data());
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw, key.size()), EVP_PKEY_free);
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  return pkey && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, pkey.get()) == 1 &&
         EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                          reinterpret_cast<const unsigned char*>(data.data()), data.size()) == 1;
}

}  // namespace keys
