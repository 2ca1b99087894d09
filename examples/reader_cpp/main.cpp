// The command line of the reader; see README.md.
#include <openssl/pem.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "ids.hpp"
#include "verify.hpp"

namespace {

constexpr int kRefused = 22, kUsage = 2;

// What reaches a terminal or a log: a name or an option must not steer the one or break a line of the other.
std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7F && c != '\\') {
      out += c;
    } else {
      out += "\\x";
      out += "0123456789abcdef"[byte >> 4];
      out += "0123456789abcdef"[byte & 15];
    }
  }
  return out;
}

int usage(const std::string& what) {
  std::cerr << "reader: " << printable(what)
            << "\nusage: reader verify CACHE (--public-key PEM... | --trust FILE) (--flight ID | --no-flight | --any-flight)\n"
               "         (--aircraft ID | --no-aircraft | --any-aircraft) (--host NAME=VALUE... | --any-host)\n"
               "         (--counter-floor N | --floor FILE [--raise-floor] | --any-counter) [--fingerprint HEX]... [--revoked HEX]... [--revoked-file FILE]...\n"
               "         [--now SECONDS | --no-clock]\n       reader trust FILE...\n"
               "       reader hash|preimage MANIFEST...\n       reader coverage < TSV\n"
               "       reader ids ROTATIONS < IDS\n";
  return kUsage;
}

std::string slurp(std::istream& file) {
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A file that is one PEM block and nothing else: what a library would skip could be somebody's second key.
bool is_one_pem(const std::string& text) {
  static const std::string kBegin = "-----BEGIN PUBLIC KEY-----", kEnd = "-----END PUBLIC KEY-----", kBlank = " \t\r\n\v\f";
  const std::size_t first = text.find_first_not_of(kBlank), last = text.find_last_not_of(kBlank);
  if (first == std::string::npos || text.size() > manifest::kMaxBytes) return false;
  const std::string block = text.substr(first, last + 1 - first);
  return block.compare(0, kBegin.size(), kBegin) == 0 && manifest::ends_with(block, kEnd) &&
         block.find("-----", kBegin.size()) == block.size() - kEnd.size();
}

std::optional<std::string> raw_key(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text = slurp(file);
  if (!is_one_pem(text)) return std::nullopt;
  std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), BIO_free);
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(PEM_read_bio_PUBKEY(memory.get(), nullptr, nullptr, nullptr),
                                                          EVP_PKEY_free);
  std::string raw(32, '\0');
  std::size_t size = raw.size();
  if (!key || EVP_PKEY_base_id(key.get()) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(key.get(), reinterpret_cast<unsigned char*>(&raw[0]), &size) != 1)
    return std::nullopt;
  return raw;
}

// One fingerprint a line, as `flightcache key fingerprint` prints them; # begins a comment.
std::optional<std::set<std::string>> fingerprint_file(const std::string& path) {
  std::ifstream file(path);
  std::set<std::string> found;
  for (std::string line; std::getline(file, line);) {
    line.erase(std::min(line.find('#'), line.size()));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto one = verify::read_fingerprints(line);
    if (!one && line.size() > 66 && line.compare(64, 2, "  ") == 0) one = verify::read_fingerprints(line.substr(0, 64));
    if (!one) return std::nullopt;
    found.insert(one->begin(), one->end());
  }
  if (file.bad() || !file.eof() || found.empty()) return std::nullopt;
  return found;
}

// The question that an option answers; empty where several answers add up. A second answer would take back the first.
std::string question(const std::string& option, const std::string& value) {
  for (const char* part : {"flight", "aircraft"})
    if (option == std::string("--") + part || option == std::string("--no-") + part || option == std::string("--any-") + part)
      return part;
  if (option == "--counter-floor" || option == "--floor" || option == "--any-counter") return "counter";
  if (option == "--now" || option == "--no-clock") return "time";
  if (option == "--host") return "host " + value.substr(0, value.find('='));
  return option == "--trust" || option == "--any-host" ? option : "";
}

int run_verify(const std::vector<std::string>& words) {
  verify::Expectations expect;
  std::set<std::string> said, answered;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string option = words[i];
    const std::string asked = question(option, i + 1 < words.size() ? words[i + 1] : "");
    if (!asked.empty() && !answered.insert(asked).second) return usage(option + " takes back another option");
    if (option == "--any-flight" || option == "--any-aircraft" || option == "--any-host" || option == "--any-counter") {
      said.insert(option.substr(6));
      continue;
    }
    if (option == "--no-flight" || option == "--no-aircraft") {
      (option == "--no-flight" ? expect.flight_id : expect.aircraft_id).emplace(std::nullopt);
      said.insert(option.substr(5));
      continue;
    }
    if (option == "--raise-floor") {
      expect.raise_floor = true;
      continue;
    }
    if (option == "--no-clock") {
      expect.no_clock = true;
      continue;
    }
    if (++i == words.size()) return usage(option + " needs a value");
    const std::string& value = words[i];
    if (option == "--public-key") {
      const auto key = raw_key(value);
      if (!key) return usage(value + " is not an Ed25519 public key");
      expect.keys.push_back(*key);
    } else if (option == "--trust") {
      std::ifstream file(value, std::ios::binary);
      try {
        expect.trust = trust::read(slurp(file));
      } catch (const std::runtime_error& error) {
        return usage(value + " is no trust file: " + error.what());
      }
    } else if (option == "--flight") {
      expect.flight_id.emplace(value);
      said.insert("flight");
    } else if (option == "--aircraft") {
      expect.aircraft_id.emplace(value);
      said.insert("aircraft");
    } else if (option == "--host") {
      static const std::set<std::string> kParts{"backend", "runtime", "arch", "device", "platform", "precision"};
      const std::size_t equals = value.find('=');
      if (equals == std::string::npos || !kParts.count(value.substr(0, equals))) return usage("--host " + value);
      expect.host[value.substr(0, equals)] = value.substr(equals + 1);
      said.insert("host");
    } else if (option == "--counter-floor") {
      if (!manifest::digits(value) || value.size() > 16) return usage("--counter-floor " + value);
      expect.counter_floor = std::stoll(value);
      said.insert("counter");
    } else if (option == "--floor") {
      expect.floor_file = value;
      said.insert("counter");
    } else if (option == "--now") {
      if (!manifest::digits(value) || value.size() > 12) return usage("--now " + value);
      expect.now_s = std::stoll(value);
    } else if (option == "--fingerprint" || option == "--revoked" || option == "--revoked-file") {
      if (option == "--fingerprint" && !expect.fingerprints) expect.fingerprints.emplace();
      const auto found = option == "--revoked-file" ? fingerprint_file(value) : verify::read_fingerprints(value);
      if (!found) return usage(option + ": no fingerprint, or one that cannot be read: " + value);
      (option == "--fingerprint" ? *expect.fingerprints : expect.revoked).insert(found->begin(), found->end());
    } else {
      return usage("unknown option " + option);
    }
  }
  if (answered.count("--any-host") && !expect.host.empty()) return usage("--any-host takes back --host");
  if (expect.raise_floor && !expect.floor_file) return usage("--raise-floor needs --floor FILE");
  for (const char* part : {"flight", "aircraft", "host", "counter"})
    if (!said.count(part)) return usage(std::string("say what is expected of ") + part + ", or --any-" + part);

  verify::Verifier verifier(words.at(0), expect);
  const auto& reasons = verifier.run();
  for (const auto& reason : reasons)
    std::cout << reason.code << '\t' << printable(reason.file) << '\t' << printable(reason.detail) << '\n';
  if (!reasons.empty()) return kRefused;
  std::cout << "PASS\t" << verifier.content().text({"build", "manifest_hash"}) << '\n';
  for (const auto& [what, detail] : verifier.content().accepted())
    std::cout << "accepted\t" << printable(what) << '\t' << printable(detail) << '\n';
  return 0;
}

int run_manifest(const std::string& verb, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes = slurp(file);
  try {
    const std::string preimage = manifest::Manifest(bytes).preimage();
    std::cout << (verb == "hash" ? manifest::Sha256::of(preimage) + "\n" : preimage);
    return 0;
  } catch (const manifest::UnknownSchema& error) {
    std::cout << "schema\t" << printable(error.what()) << '\n';
  } catch (const json::Malformed& error) {
    std::cout << "malformed\t" << printable(error.what()) << '\n';
  }
  return kRefused;
}

int run_trust(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  try {
    std::cout << trust::read(slurp(file)).version << '\n';
    return 0;
  } catch (const trust::Unsigned& error) {
    std::cout << "unsigned\t" << printable(error.what()) << '\n';
  } catch (const json::Malformed& error) {
    std::cout << "malformed\t" << printable(error.what()) << '\n';
  }
  return kRefused;
}

int run_ids(const std::string& rotations) {
  if (!manifest::digits(rotations) || rotations.size() > 3) return usage("ids " + rotations);
  for (std::string id; std::cin >> id;) {
    if (!manifest::digits(id)) return usage("ids: whole numbers expected");
    try {
      const ids::Place place = ids::place_of(std::stoll(id), std::stoi(rotations));
      std::cout << place.zoom << '\t' << place.x << '\t' << place.y << '\t' << place.source << '\t' << place.heading
                << '\t' << place.cut << '\t' << place.lat_e7 << '\t' << place.lon_e7 << '\n';
    } catch (const std::logic_error& error) {  // no number of 63 bits, or no id
      std::cout << "malformed\t" << printable(error.what()) << '\n';
      return kRefused;
    }
  }
  return 0;
}

int run_coverage() {
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> row;
    std::istringstream fields(line);
    for (std::string field; std::getline(fields, field, '\t');) row.push_back(field);
    if (row.size() != 5) return usage("five fields in a row, separated by tabs");
    rows.push_back(row);
  }
  std::cout << manifest::Sha256::of(manifest::coverage_preimage(rows)) << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() >= 2 && words[0] == "verify") return run_verify({words.begin() + 1, words.end()});
  if (words.size() >= 2 && (words[0] == "hash" || words[0] == "preimage")) {
    int code = 0;
    for (std::size_t i = 1; i < words.size(); ++i) code = std::max(code, run_manifest(words[0], words[i]));
    return code;
  }
  if (words.size() >= 2 && words[0] == "trust") {
    int code = 0;
    for (std::size_t i = 1; i < words.size(); ++i) code = std::max(code, run_trust(words[i]));
    return code;
  }
  if (words.size() == 1 && words[0] == "coverage") return run_coverage();
  if (words.size() == 2 && words[0] == "ids") return run_ids(words[1]);
  return usage("no such command");
}
