// Verify a cache, load its index from the verified bytes, look descriptors up. See README.md.
#include <faiss/Index.h>
#include <faiss/impl/io.h>
#include <faiss/index_io.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "../reader_cpp/verify.hpp"

namespace {

constexpr int kRefused = 22, kUsage = 2;

// PASS, or nothing at all: every reason is on stderr. The host tuple is the engine's business, which this program does not load.
std::unique_ptr<verify::Verifier> verified(const std::string& cache, const std::string& trust_file, const std::string& flight,
                                           const std::string& aircraft, const std::string& floor) {
  std::ifstream file(trust_file, std::ios::binary);
  verify::Expectations expect;
  expect.trust = trust::read({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
  expect.flight_id.emplace(flight);
  expect.aircraft_id.emplace(aircraft);
  expect.floor_file = floor;
  expect.raise_floor = true;
  auto verifier = std::make_unique<verify::Verifier>(cache, expect);
  const auto& reasons = verifier->run();
  for (const auto& reason : reasons) std::cerr << reason.code << '\t' << reason.file << '\t' << reason.detail << '\n';
  return reasons.empty() ? std::move(verifier) : nullptr;
}

std::unique_ptr<faiss::Index> index_of(const verify::Verifier& verifier) {
  const auto bytes = verifier.read("corpus.index");
  if (!bytes) return nullptr;
  faiss::VectorIOReader reader;
  reader.data.assign(bytes->begin(), bytes->end());
  return std::unique_ptr<faiss::Index>(faiss::read_index(&reader));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 6) {
    std::cerr << "usage: search CACHE TRUST.json FLIGHT AIRCRAFT FLOOR < descriptors, float32\n";
    return kUsage;
  }
  const auto verifier = verified(argv[1], argv[2], argv[3], argv[4], argv[5]);
  const auto index = verifier ? index_of(*verifier) : nullptr;
  if (!index) return kRefused;
  constexpr std::int64_t kPlaces = 3;
  std::vector<float> descriptor(static_cast<std::size_t>(index->d)), scores(kPlaces);
  std::vector<std::int64_t> ids(kPlaces);
  while (std::fread(descriptor.data(), sizeof(float), descriptor.size(), stdin) == descriptor.size()) {
    index->search(1, descriptor.data(), kPlaces, scores.data(), ids.data());
    for (std::size_t rank = 0; rank < ids.size(); ++rank)
      if (ids[rank] >= 0) std::printf("%s%lld %.6f", rank ? "\t" : "", static_cast<long long>(ids[rank]), static_cast<double>(scores[rank]));
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return kRefused;
}
