dcfs_plugin = self

namespace :dcfs do
  desc "Check that the source is here and dcfs is on the servers"
  task :check do
    source = fetch(:dcfs_source)
    abort "dcfs: :dcfs_source #{source} is not a directory" unless File.directory?(source)
    abort "dcfs: set :dcfs_origin to the origin's URL" unless fetch(:dcfs_origin)
    on release_roles(:all) do
      execute :dcfs, "--version"
    end
  end

  desc "Publish the source as a release"
  task :publish do
    run_locally do
      release = JSON.parse(capture(:dcfs, *dcfs_plugin.publish_arguments))
      set :current_revision, release.fetch("infohash")
      info "dcfs: #{release['version']} is #{release['infohash']}, #{release['files']} files, #{release['bytes']} bytes"
    end
  end

  # All servers at once: they fetch from each other. A server that fails ends
  # the deployment before any current symlink was touched.
  desc "Fetch the release into release_path on every server"
  task create_release: :publish do
    on release_roles(:all) do
      execute :dcfs, *dcfs_plugin.fetch_arguments
    end
  end
end
