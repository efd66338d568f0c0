require "capistrano/scm/plugin"
require "json"

# Publishes a directory of this machine as a dcfs release and has every server
# fetch it into its release_path, most of it from each other. Everything else
# (shared files, the current symlink, cleanup, rollback) stays Capistrano's.
#
#   # Capfile
#   require "capistrano/scm/dcfs"
#   install_plugin Capistrano::SCM::Dcfs
#
#   # config/deploy.rb
#   set :dcfs_source, "build"                 # what is deployed
#   set :dcfs_origin, "http://origin:7070"
#   set :dcfs_key, "release.key"
#   set :dcfs_publish_token_file, "publish.token"
#
# docs/plugs.md has the rest.
class Capistrano::SCM::Dcfs < Capistrano::SCM::Plugin
  def set_defaults
    set_if_empty :dcfs_source, "."
    set_if_empty :dcfs_version, -> { "#{fetch(:application)}/#{fetch(:release_timestamp)}" }
    set_if_empty :dcfs_host_origin, -> { fetch(:dcfs_origin) }
    set_if_empty :dcfs_linger, "5m"
    set_if_empty :dcfs_publish_flags, []
    set_if_empty :dcfs_fetch_flags, []
  end

  def register_hooks
    before "deploy:check", "dcfs:check"
    after "deploy:new_release_path", "dcfs:create_release"
  end

  def define_tasks
    eval_rakefile File.expand_path("../tasks/dcfs.rake", __FILE__)
  end

  # The arguments that publish the source; nothing secret is among them.
  def publish_arguments
    args = ["publish", fetch(:dcfs_source), "--as", fetch(:dcfs_version), "--origin", fetch(:dcfs_origin), "--json", "--quiet"]
    args += ["--key", fetch(:dcfs_key)] if fetch(:dcfs_key)
    args += ["--publish-token-file", fetch(:dcfs_publish_token_file)] if fetch(:dcfs_publish_token_file)
    args + fetch(:dcfs_publish_flags)
  end

  # The arguments that fetch the release into release_path. They return when the
  # copy stands there, whole; the server then seeds on in the background.
  def fetch_arguments
    ["fetch", fetch(:dcfs_version), release_path, "--origin", fetch(:dcfs_host_origin), "--linger", fetch(:dcfs_linger),
     "--detach-after", "materialised", "--quiet"] + fetch(:dcfs_fetch_flags)
  end
end
